package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	stdoutBytes = 256 << 20
	stdinBytes  = 256 << 20
	// What is sent at a time, by both.
	stdinFrame = 32 << 10
	// The raw way loses the end of long input now and then (seen with containerd 1.6), and that of output, on a busy node (seen with
	// Kubernetes 1.34); the runner may not.
	rawLoss       = 1 << 20
	rawOutputLoss = 4 << 20
	archiveBytes  = 16 << 20
	keyPause      = 200 * time.Millisecond
	typingTime    = 5 * time.Second
	keyLag        = 20 * time.Millisecond
	followedLines = 10
)

// The first line comes before any input is read: container runtimes were seen to cut the input of a command that is silent.
var (
	count  = []string{"sh", "-c", "echo; exec wc -c"}
	unpack = []string{"sh", "-c", "echo; exec tar -xf - -C /tmp"}
)

// rows of the real cluster: `runner` beside `bare`, a handler that always answers as Ready does, the raw `cluster`, and that
// through a `forwarder` that does no more than any runner must.
func rows(runner, bare *runner, forwarder *process, cluster *cluster, id string, f flags) []row {
	handler := subject{name: "bare node:http2 handler", call: bare.ready}.on(bare.process)
	ready := subject{name: "Ready", call: runner.ready}.on(runner.process)
	inspect := subject{name: "InspectWorkload", call: runner.inspect(id)}.on(runner.process)
	get := subject{name: "live GET of the Pod", call: cluster.get(id)}
	echo := subject{name: "Exec echo", call: printing(2, runner.feed(id, nil, "echo", "x").bytes)}.on(runner.process)
	rawEcho := subject{name: "raw exec WebSocket", call: printing(2, cluster.feed(id, nil, "echo", "x").bytes)}
	rawBurst := subject{name: "raw exec WebSocket", call: losing(2, 2, cluster.feed(id, nil, "echo", "x").bytes)}
	kubectl := subject{name: "kubectl exec", call: printing(2, cluster.kubectl(id, "echo", "x"))}
	size := fmt.Sprint(stdoutBytes)
	zeros := subject{name: "Exec head -c 256 MiB", call: printing(stdoutBytes, runner.feed(id, nil, "head", "-c", size, "/dev/zero").bytes)}.on(runner.process)
	rawZeros := subject{name: "raw exec WebSocket", call: losing(rawOutputLoss, stdoutBytes, cluster.feed(id, nil, "head", "-c", size, "/dev/zero").bytes)}.on(self())
	passed := cluster.through(forwarder)
	const byForwarder = "the same through a bare forwarder"
	passedZeros := subject{name: byForwarder, call: losing(rawOutputLoss, stdoutBytes, passed.feed(id, nil, "head", "-c", size, "/dev/zero").bytes)}.on(forwarder)
	input := make([]byte, stdinBytes)
	counted := subject{name: "Exec wc -c of 256 MiB", call: taking(stdinBytes, stdinBytes, runner.feed(id, input, count...))}.on(runner.process)
	rawCounted := subject{name: "raw exec WebSocket", call: taking(stdinBytes-rawLoss, stdinBytes, cluster.feed(id, input, count...))}.on(self())
	passedCounted := subject{name: byForwarder, call: taking(stdinBytes-rawLoss, stdinBytes, passed.feed(id, input, count...))}.on(forwarder)
	archive := tarOf(archiveBytes)
	put := subject{name: "PutArchive of 16 MiB", call: runner.putArchive(id, archive)}.on(runner.process)
	// Not raw: that loses what comes last of so much input more often than not (seen with containerd 1.6), or never ends.
	length := int64(len(archive))
	counting := subject{name: "Exec wc -c, as many bytes", call: taking(length, length, runner.feed(id, archive, count...))}.on(runner.process)
	// What a client would do that had no PutArchive.
	unpacking := subject{name: "Exec tar -x, the same", call: sending(length, runner.feed(id, archive, unpack...))}.on(runner.process)
	launch := subject{name: "StartWorkload to Running", call: runner.launch(f.image)}.on(runner.process)
	rawLaunch := subject{name: "raw POST of the Pod to Running", call: cluster.launch(id)}

	typist := func(open opener, count int) func(context.Context) (turn, error) {
		return func(ctx context.Context) (turn, error) { return typists(ctx, open, count, keyPause, typingTime) }
	}
	keys := func(count int) (subject, subject) {
		return subject{name: "a key and its echo by Exec", turn: typist(runner.open(id, true, typing...).ready(1), count)}.on(runner.process),
			subject{name: "raw exec WebSocket", turn: typist(cluster.open(id, true, typing...).ready(5), count)}
	}
	key, rawKey := keys(1)
	manyKeys, rawManyKeys := keys(100)
	follow := func(to follower) func(context.Context) (turn, error) {
		return func(ctx context.Context) (turn, error) {
			return following(ctx, to, f.followers, followedLines, cluster.writeLog(ctx, id))
		}
	}
	follows := subject{name: fmt.Sprintf("a line to each of %d followers", f.followers), turn: follow(runner.follow(id))}.on(runner.process)
	rawFollows := subject{name: "raw log GET, as many", turn: follow(cluster.follow(id))}

	streamed := func(r row, raw, passed subject) row {
		rounds := 4
		if f.apart {
			r.label, rounds = r.name+", apart", 12
		}
		r.callers, r.inBytes, r.rounds = 1, true, cmp.Or(r.rounds, rounds)
		r.baselines = []subject{raw, passed}
		return r
	}
	// A stream is held to the raw one where the cluster has cores of its own: where all share the cores, nothing in between can keep
	// up, as the forwarder shows.
	held := func(raw subject) subject {
		if f.apart {
			return raw.with(goal{rateAtLeast: 0.95, cpuAbove: 1.3})
		}
		return raw
	}

	// Once, as a kubelet would begin another file with more; then a read to follow would wait for what it no longer has.
	filled := false
	fill := func(ctx context.Context) error {
		if filled {
			return nil
		}
		filled = true
		return cluster.fillLog(ctx, id, max(f.logBytes, f.longBytes))
	}
	reads := func(bytes int64, follow bool) row {
		isLong := bytes == f.longBytes
		name, manner := "log-read", ""
		if follow {
			name, manner = "log-tail", ", followed"
		}
		read := subject{name: fmt.Sprintf("StreamWorkloadLogs of %g MiB%s", mib(bytes), manner), call: runner.readLog(id, bytes, follow)}.on(runner.process)
		raw := subject{name: "raw log GET" + manner, call: cluster.readLog(id, bytes, follow)}.on(self())
		through := subject{name: byForwarder, call: passed.readLog(id, bytes, follow)}.on(forwarder)
		if isLong || !follow { // of a short read, the connection of its own that a followed log has is a good part
			raw = held(raw)
		}
		r := streamed(row{name: name, turn: limit{20, time.Second}, subject: read, before: fill}, raw, through)
		switch {
		case !isLong:
			r.rounds *= 4 // of a second each: the machine is another one every few seconds
		case follow:
			r.turn = limit{1, time.Minute}
		default:
			r.turn, r.rounds = limit{1, time.Minute}, 6 // what differs from a shorter one is little
		}
		return r
	}
	logs := []row{reads(f.logBytes, false)}
	if f.longBytes > 0 {
		logs = append(logs, reads(f.longBytes, false), reads(f.longBytes, true))
	}
	logs = append(logs, reads(f.logBytes, true))

	second := limit{calls: 100_000, time: time.Second}
	return append([]row{
		{name: "ready", callers: 1, rounds: 6, turn: second, subject: ready, baselines: []subject{handler.with(goal{p50AtMost: 1.3})}},
		{name: "ready", callers: 32, rounds: 6, turn: second, subject: ready, baselines: []subject{handler.with(goal{rateAtLeast: 0.75})}},
		{name: "inspect", callers: 1, rounds: 6, turn: second, subject: inspect,
			baselines: []subject{ready.with(goal{p50AtMost: 1.5}), handler, get.with(goal{p50AtMost: 0.5})}},
		{name: "inspect", callers: 32, rounds: 6, turn: second, subject: inspect,
			baselines: []subject{ready, handler.with(goal{rateAtLeast: 0.6}), get}},
		{name: "start", callers: 1, rounds: 3, turn: limit{2, time.Minute}, subject: launch,
			baselines: []subject{rawLaunch.with(goal{p50AtMost: 1.25})}},
		{name: "exec-echo", callers: 1, rounds: 10, turn: limit{10, 5 * time.Second}, subject: echo,
			baselines: []subject{rawEcho.with(goal{p50AtMost: 1.15}), kubectl}},
		{name: "exec-echo", callers: 8, rounds: 5, turn: limit{40, 10 * time.Second}, subject: echo,
			baselines: []subject{rawEcho.with(goal{rateAtLeast: 0.9})}},
		// Without a goal: so many at once can make a small node stand still, whoever asks.
		{name: "exec-burst", callers: 32, rounds: 3, turn: limit{96, 15 * time.Second}, subject: echo, baselines: []subject{rawBurst}},
		streamed(row{name: "exec-stdout", turn: limit{1, time.Minute}, subject: zeros}, held(rawZeros), passedZeros),
		// In few rounds also apart: it is far from its goals, and takes long.
		streamed(row{name: "exec-stdin", rounds: 4, turn: limit{1, time.Minute}, subject: counted}, held(rawCounted), passedCounted),
		{name: "keystroke", callers: 1, rounds: 2, subject: key, baselines: []subject{rawKey.with(goal{p99Above: keyLag})}},
		{name: "keystroke", callers: 100, rounds: 2, subject: manyKeys, baselines: []subject{rawManyKeys.with(goal{p99Above: keyLag})}},
		{name: "log-follow", callers: f.followers, rounds: 5, subject: follows, baselines: []subject{rawFollows.with(goal{p50AtMost: 1.25})}},
		{name: "archive", callers: 1, rounds: 8, turn: limit{2, time.Minute}, inBytes: true, subject: put,
			baselines: []subject{counting.with(goal{rateAtLeast: 0.9}), unpacking.with(goal{rateAtLeast: 0.9})}},
	}, logs...)
}

// on names the process whose CPU time is told.
func (s subject) on(p *process) subject {
	s.server = p
	return s
}

func (s subject) with(g goal) subject {
	s.goal = g
	return s
}

// An execution takes a command's whole life: its input goes in, its output comes out.
type execution func(context.Context) (output, error)

// output is how much a command wrote, and the end of it.
type output struct {
	bytes int64
	tail  []byte
}

func (o *output) take(data []byte) {
	o.bytes += int64(len(data))
	o.tail = append(o.tail, data...)
	if len(o.tail) > 64 {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-64:]...)
	}
}

// printing checks that all the output came: a fast answer with a hole in it is no answer.
func printing(bytes int64, call func(context.Context) (int64, error)) func(context.Context) (int64, error) {
	return losing(0, bytes, call)
}

// losing is for the raw way, and tells how much came when its end is missing.
func losing(most, bytes int64, call func(context.Context) (int64, error)) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		n, err := call(ctx)
		if err == nil && (n > bytes || n < bytes-most) {
			err = fmt.Errorf("%d bytes of output instead of %d", n, bytes)
		}
		return n, err
	}
}

func (run execution) bytes(ctx context.Context) (int64, error) {
	out, err := run(ctx)
	return out.bytes, err
}

// sending is for input of which the command's exit code tells whether it arrived; and returns how much that is.
func sending(bytes int64, run execution) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		_, err := run(ctx)
		return bytes, err
	}
}

// taking checks, by the command's own count, that at least so much of the input arrived, and returns how much did.
func taking(least, most int64, run execution) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		out, err := run(ctx)
		if err != nil {
			return 0, err
		}
		arrived, err := strconv.ParseInt(strings.TrimSpace(string(out.tail)), 10, 64)
		if err == nil && (arrived < least || arrived > most) {
			err = fmt.Errorf("%d bytes of input arrived instead of %d", arrived, most)
		}
		return arrived, err
	}
}
