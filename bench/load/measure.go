package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A subject is one of the things that a row compares: call does its work once and returns the payload bytes it received.
type subject struct {
	name string
	call func(context.Context) (int64, error)
	// In place of call, for what is no sequence of calls: a whole turn.
	turn func(context.Context) (turn, error)
	// Whose CPU time is told: the server's, or where there is none in between, that of the raw client; may be nil.
	server *process
	// What the row's first subject should reach beside this one; zero where nothing is promised.
	goal goal
}

// A goal is a promise on the row's first subject beside a baseline: ratios, and how far its p99 and its CPU time may be above the other's.
type goal struct {
	p50AtMost, rateAtLeast float64
	p99Above               time.Duration
	cpuAbove               float64 // seconds for 1 GiB
}

// A row measures its first subject beside the others, its baselines.
type row struct {
	name    string
	label   string // in the table, where that is not the name
	callers int
	rounds  int
	turn    limit
	inBytes bool // the rate is one of bytes, not of calls
	before  func(context.Context) error
	subject subject
	// The subject's p50 may not be longer, whatever the baselines say; 0 is no limit.
	p50AtMost time.Duration
	// In order; a turn of the subject, then of each baseline, makes a round.
	baselines []subject
}

// A limit ends a turn by whichever comes first.
type limit struct {
	calls int64
	time  time.Duration
}

// A turn is what calls made in one stretch of one subject took.
type turn struct {
	latencies []time.Duration
	bytes     int64
	elapsed   time.Duration
	cpu       time.Duration // of the subject's server
}

// measure gives every subject one turn that does not count, then rounds of turns A B A B, so that what else the machine
// does meets all alike. The result is by subject, then by round.
func (r row) measure(ctx context.Context) ([][]turn, error) {
	if r.before != nil {
		if err := r.before(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	subjects := append([]subject{r.subject}, r.baselines...)
	turns := make([][]turn, len(subjects))
	for round := range r.rounds + 1 {
		for i, s := range subjects {
			t, err := r.measured(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", r.name, s.name, err)
			}
			if round > 0 {
				turns[i] = append(turns[i], t)
			}
		}
	}
	return turns, nil
}

// measured takes a turn, and the time of all cores that the subject's server used for it.
func (r row) measured(ctx context.Context, s subject) (turn, error) {
	take := s.turn
	if take == nil {
		take = func(ctx context.Context) (turn, error) { return r.take(ctx, s) }
	}
	if s.server == nil {
		return take(ctx)
	}
	before, err := s.server.cpu()
	if err != nil {
		return turn{}, err
	}
	t, err := take(ctx)
	if err != nil {
		return t, err
	}
	after, err := s.server.cpu()
	t.cpu = after - before
	return t, err
}

// take lets the row's callers call one after the other, each as soon as its last call is answered. The first failure ends
// the turn: a figure with failures in it says nothing.
func (r row) take(ctx context.Context, s subject) (turn, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var (
		total   turn
		begun   atomic.Int64
		lock    sync.Mutex
		callers sync.WaitGroup
	)
	start := time.Now()
	for range r.callers {
		callers.Go(func() {
			var own turn
			for begun.Add(1) <= r.turn.calls && time.Since(start) < r.turn.time && ctx.Err() == nil {
				at := time.Now()
				n, err := s.call(ctx)
				if err != nil {
					fail(err)
					return
				}
				own.latencies = append(own.latencies, time.Since(at))
				own.bytes += n
			}
			lock.Lock()
			defer lock.Unlock()
			total.latencies = append(total.latencies, own.latencies...)
			total.bytes += own.bytes
		})
	}
	callers.Wait()
	total.elapsed = time.Since(start)
	return total, context.Cause(ctx)
}

// pooled is all turns of one subject as if they were one.
func pooled(turns []turn) turn {
	var all turn
	for _, t := range turns {
		all.latencies = append(all.latencies, t.latencies...)
		all.bytes += t.bytes
		all.elapsed += t.elapsed
		all.cpu += t.cpu
	}
	return all
}

// quantile is the latency that the share q of the calls did not exceed (nearest rank).
func (t turn) quantile(q float64) time.Duration {
	if len(t.latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.latencies))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// rate is by the second: of bytes, or of calls.
func (t turn) rate(inBytes bool) float64 {
	if inBytes {
		return float64(t.bytes) / t.elapsed.Seconds()
	}
	return float64(len(t.latencies)) / t.elapsed.Seconds()
}
