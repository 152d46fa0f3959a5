package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	pb "k8s-runner-bench/gen/agynio/api/runner/v1"
)

const (
	starts    = 5
	idleExecs = 500
	// For what a start leaves behind to be collected.
	settleTime = 2 * time.Second

	servingAtMost = 150.0  // ms
	readyAtMost   = 1000.0 // ms, of 1,000 Pods
	idleAtMost    = 80.0   // MB
	crowdAtMost   = 120.0  // MiB, of 10,000 Pods
	eachAtMost    = 120.0  // KiB, of an idle execution
)

// A scale measures runners of many workloads, beside a crowd.
type scale struct {
	report *report
	out    io.Writer
	rounds int    // of each row; 0 is the row's own number
	pod    []byte // which all are copies of
	id     string
	idle   int64 // memory with one Pod, in bytes
}

func (s *scale) measure(ctx context.Context, size int) (err error) {
	c, err := serveCrowd(s.pod, s.id, size)
	if err != nil {
		return err
	}
	defer c.close()
	name := fmt.Sprintf("%d Pods", size)
	if size == 1 {
		name = "1 Pod"
	}
	var servings, syncs []time.Duration
	var r *runner
	for range starts {
		if r != nil {
			r.stop()
		}
		var serving, synced time.Duration
		if r, serving, synced, err = c.start(ctx); err != nil {
			return err
		}
		servings, syncs = append(servings, serving), append(syncs, synced)
	}
	defer func() { r.stop() }()
	// As young as the runner is: the longer it serves, the better is its code compiled.
	bare, err := serve(ctx, handlerEnv, "bench/baseline.ts")
	if err != nil {
		return err
	}
	defer bare.stop()
	slices.Sort(servings)
	slices.Sort(syncs)
	figures := func(row, measured, unit string, value, atMost float64) {
		s.report.figure(s.out, figure{Row: row, Measured: measured, Unit: unit, Value: value}, atMost)
	}
	if size == 1 {
		figures("start-up", "process start to serving", "ms", ms(servings[starts/2]), servingAtMost)
	}
	figures("start-up", "process start to the first answer from the cache, "+name, "ms", ms(syncs[starts/2]), when(size == 1000, readyAtMost))

	time.Sleep(settleTime)
	if size == 1 {
		if s.idle, err = r.process.resident(); err != nil {
			return err
		}
		figures("memory", "idle, 1 Pod", "MB", float64(s.idle)/1e6, idleAtMost)
	}
	for _, row := range s.rows(c, r, bare, name) {
		if s.rounds > 0 {
			row.rounds = s.rounds
		}
		turns, failure := row.measure(ctx)
		if failure != nil {
			err = errors.Join(err, failure)
			continue
		}
		for _, l := range row.lines(turns) {
			s.report.Lines = append(s.report.Lines, l)
			l.print(s.out)
		}
	}
	time.Sleep(settleTime)
	now, failure := r.process.resident()
	figures("memory", "above idle, "+name+", after the reads", "MiB", mib(now-s.idle), when(size == 10_000, crowdAtMost))
	return errors.Join(err, failure)
}

func when(holds bool, value float64) float64 {
	if holds {
		return value
	}
	return 0
}

func (s *scale) rows(c *crowd, r, young *runner, name string) []row {
	second := limit{calls: 100_000, time: time.Second}
	var index atomic.Int64
	next := func() int { return int(index.Add(7919)) } // a prime: any of them, again and again
	bare := subject{name: "bare node:http2 handler", call: young.ready, server: young.process}
	inspect := subject{name: "InspectWorkload, " + name, server: r.process, call: func(ctx context.Context) (int64, error) {
		return r.inspect(c.workloadID(next()))(ctx)
	}}
	find := subject{name: "FindWorkloadsByLabels, " + name, server: r.process, call: func(ctx context.Context) (int64, error) {
		group := fmt.Sprint("g", next()%max(1, len(c.pods)/groupSize))
		found, err := r.FindWorkloadsByLabels(ctx, &pb.FindWorkloadsByLabelsRequest{Labels: map[string]string{"group": group}})
		if err == nil && len(found.TargetIds) != min(groupSize, len(c.pods)) {
			err = fmt.Errorf("%d found", len(found.TargetIds))
		}
		return 0, err
	}}
	list := subject{name: "ListWorkloads, " + name, server: r.process, call: func(ctx context.Context) (int64, error) {
		all, err := r.ListWorkloads(ctx, &pb.ListWorkloadsRequest{})
		if err == nil && len(all.Workloads) != len(c.pods) {
			err = fmt.Errorf("%d listed", len(all.Workloads))
		}
		return 0, err
	}}
	return []row{
		{name: "inspect", callers: 1, rounds: 6, turn: second, subject: inspect, baselines: []subject{bare.with(goal{p50AtMost: 1.5})}},
		{name: "inspect", callers: 32, rounds: 6, turn: second, subject: inspect, baselines: []subject{bare.with(goal{rateAtLeast: 0.6})}},
		{name: "find", callers: 1, rounds: 3, turn: second, subject: find, p50AtMost: 2 * time.Millisecond},
		{name: "list", callers: 1, rounds: 3, turn: limit{20, time.Second}, subject: list, p50AtMost: 150 * time.Millisecond},
	}
}

// idleSessions tells what an execution costs in memory that waits for input.
func idleSessions(ctx context.Context, rep *report, out io.Writer, r *runner, id string, count int) error {
	time.Sleep(settleTime)
	before, err := r.process.resident()
	if err != nil {
		return err
	}
	sessions, err := openAll(ctx, r.open(id, false, "cat"), count)
	if err != nil {
		return err
	}
	defer closeAll(sessions)
	time.Sleep(settleTime)
	after, err := r.process.resident()
	if err != nil {
		return err
	}
	f := figure{Row: "memory", Measured: fmt.Sprintf("an idle execution, of %d", count), Unit: "KiB", Value: float64(after-before) / 1024 / float64(count)}
	rep.figure(out, f, eachAtMost)
	return nil
}
