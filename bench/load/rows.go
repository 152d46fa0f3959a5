package main

import (
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
	// The raw way loses the end of long input now and then (seen with containerd 1.6); the runner may not.
	rawLoss = 1 << 20
)

// The first line comes before any input is read: container runtimes were seen to cut the input of a command that is silent.
var count = []string{"sh", "-c", "echo; exec wc -c"}

// names of all rows, in order of the table.
func names() []string {
	return []string{"ready", "inspect", "exec-echo", "exec-stdout", "exec-stdin", requestsRow}
}

// rows of the table: `runner` beside `bare`, a handler that always answers as Ready does, and the raw `cluster`.
func rows(runner, bare *runner, cluster *cluster, id string) []row {
	handler := subject{name: "bare node:http2 handler", call: bare.ready}
	ready := subject{name: "Ready", call: runner.ready}
	inspect := subject{name: "InspectWorkload", call: runner.inspect(id)}
	get := subject{name: "live GET of the Pod", call: cluster.get(id)}
	echo := subject{name: "Exec echo", call: printing(2, runner.feed(id, 0, "echo", "x").bytes)}
	rawEcho := subject{name: "raw exec WebSocket", call: printing(2, cluster.feed(id, 0, "echo", "x").bytes)}
	size := fmt.Sprint(stdoutBytes)
	zeros := subject{name: "Exec head -c 256 MiB", call: printing(stdoutBytes, runner.feed(id, 0, "head", "-c", size, "/dev/zero").bytes)}
	rawZeros := subject{name: "raw exec WebSocket", call: printing(stdoutBytes, cluster.feed(id, 0, "head", "-c", size, "/dev/zero").bytes)}

	counted := subject{name: "Exec wc -c of 256 MiB", call: taking(stdinBytes, stdinBytes, runner.feed(id, stdinBytes, count...))}
	rawCounted := subject{name: "raw exec WebSocket", call: taking(stdinBytes-rawLoss, stdinBytes, cluster.feed(id, stdinBytes, count...))}

	second := limit{calls: 100_000, time: time.Second}
	return []row{
		{name: "ready", callers: 1, rounds: 6, turn: second, subject: ready, baselines: []subject{handler}},
		{name: "ready", callers: 32, rounds: 6, turn: second, subject: ready, baselines: []subject{handler}},
		{name: "inspect", callers: 1, rounds: 6, turn: second, subject: inspect,
			baselines: []subject{ready.with(goal{p50AtMost: 1.5}), handler, get}},
		{name: "inspect", callers: 32, rounds: 6, turn: second, subject: inspect,
			baselines: []subject{ready, handler, get}},
		{name: "exec-echo", callers: 1, rounds: 10, turn: limit{10, 5 * time.Second}, subject: echo,
			baselines: []subject{rawEcho.with(goal{p50AtMost: 1.15})}},
		{name: "exec-echo", callers: 8, rounds: 5, turn: limit{40, 10 * time.Second}, subject: echo,
			baselines: []subject{rawEcho.with(goal{rateAtLeast: 0.9})}},
		{name: "exec-stdout", callers: 1, rounds: 3, turn: limit{1, time.Minute}, inBytes: true, subject: zeros,
			baselines: []subject{rawZeros.with(goal{rateAtLeast: 0.95})}},
		{name: "exec-stdin", callers: 1, rounds: 3, turn: limit{1, time.Minute}, inBytes: true, subject: counted,
			baselines: []subject{rawCounted.with(goal{rateAtLeast: 0.95})}},
	}
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
	return func(ctx context.Context) (int64, error) {
		n, err := call(ctx)
		if err == nil && n != bytes {
			err = fmt.Errorf("%d bytes of output instead of %d", n, bytes)
		}
		return n, err
	}
}

func (run execution) bytes(ctx context.Context) (int64, error) {
	out, err := run(ctx)
	return out.bytes, err
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
