package main

import (
	"context"
	"fmt"
	"time"
)

const stdoutBytes = 256 << 20

// names of all rows, in order of the table.
func names() []string { return []string{"ready", "inspect", "exec-echo", "exec-stdout", requestsRow} }

// rows of the table: `runner` beside `bare`, a handler that always answers as Ready does, and the raw `cluster`.
func rows(runner, bare *runner, cluster *cluster, id string) []row {
	handler := subject{name: "bare node:http2 handler", call: bare.ready}
	ready := subject{name: "Ready", call: runner.ready}
	inspect := subject{name: "InspectWorkload", call: runner.inspect(id)}
	get := subject{name: "live GET of the Pod", call: cluster.get(id)}
	echo := subject{name: "Exec echo", call: printing(2, runner.exec(id, "echo", "x"))}
	rawEcho := subject{name: "raw exec WebSocket", call: printing(2, cluster.exec(id, "echo", "x"))}
	size := fmt.Sprint(stdoutBytes)
	zeros := subject{name: "Exec head -c 256 MiB", call: printing(stdoutBytes, runner.exec(id, "head", "-c", size, "/dev/zero"))}
	rawZeros := subject{name: "raw exec WebSocket", call: printing(stdoutBytes, cluster.exec(id, "head", "-c", size, "/dev/zero"))}

	second := limit{calls: 100_000, time: time.Second}
	return []row{
		{name: "ready", callers: 1, rounds: 6, turn: second, subject: ready, baselines: []subject{handler}},
		{name: "ready", callers: 32, rounds: 6, turn: second, subject: ready, baselines: []subject{handler}},
		{name: "inspect", callers: 1, rounds: 6, turn: second, subject: inspect,
			baselines: []subject{ready.with(goal{p50AtMost: 1.5}), handler, get}},
		{name: "inspect", callers: 32, rounds: 6, turn: second, subject: inspect,
			baselines: []subject{ready, handler, get}},
		{name: "exec-echo", callers: 1, rounds: 10, turn: limit{10, 5 * time.Second}, subject: echo,
			baselines: []subject{rawEcho.with(goal{p50AtMost: 1.25})}},
		{name: "exec-echo", callers: 8, rounds: 5, turn: limit{40, 10 * time.Second}, subject: echo,
			baselines: []subject{rawEcho}},
		{name: "exec-stdout", callers: 1, rounds: 3, turn: limit{1, time.Minute}, inBytes: true, subject: zeros,
			baselines: []subject{rawZeros}},
	}
}

func (s subject) with(g goal) subject {
	s.goal = g
	return s
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
