package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "k8s-runner-bench/gen/agynio/api/runner/v1"
)

const (
	chunkBytes    = 32 << 10
	streamChunks  = 8 << 10 // 256 MiB a call
	slowReaders   = 20
	slowTime      = 12 * time.Second
	slowRate      = 64 << 10 // bytes a second
	endlessChunks = 1<<32 - 1
)

// measureWire compares the runner's own gRPC with that of connect-node, below handlers that do nothing and without a
// cluster: see ../wire.ts.
func measureWire(ctx context.Context, rounds int, out io.Writer) error {
	var servers []*wireServer
	for _, args := range [][]string{{"bench/wire.ts", "own"}, {"bench/wire.ts", "connect-node"}, {"bench/baseline.ts"}} {
		var env []string
		if args[0] == "bench/baseline.ts" {
			env = handlerEnv
		}
		p, err := start(env, args...)
		if err != nil {
			return err
		}
		r, err := dial(ctx, p)
		if err != nil {
			p.stop()
			return err
		}
		defer r.stop()
		servers = append(servers, &wireServer{r})
	}
	own, node, bare := servers[0], servers[1], servers[2]

	second := limit{calls: 100_000, time: time.Second}
	subjects := func(of func(*wireServer) func(context.Context) (int64, error), others ...subject) (subject, []subject) {
		return subject{name: "own", call: of(own)}, append([]subject{{name: "connect-node", call: of(node)}}, others...)
	}
	handler := subject{name: "bare node:http2 handler", call: bare.ready}
	ready := func(s *wireServer) func(context.Context) (int64, error) { return s.ready }
	inspect := func(s *wireServer) func(context.Context) (int64, error) { return s.inspect("x") }
	stream := func(s *wireServer) func(context.Context) (int64, error) {
		return printing(chunkBytes*streamChunks, s.stream)
	}
	upload := func(s *wireServer) func(context.Context) (int64, error) {
		return printing(chunkBytes*streamChunks, s.upload)
	}
	var all []row
	add := func(r row, of func(*wireServer) func(context.Context) (int64, error), others ...subject) {
		r.subject, r.baselines = subjects(of, others...)
		all = append(all, r)
	}
	add(row{name: "wire-ready", callers: 1, rounds: 6, turn: second}, ready, handler.with(goal{p50AtMost: 1.3}))
	add(row{name: "wire-ready", callers: 32, rounds: 6, turn: second}, ready, handler.with(goal{rateAtLeast: 0.75}))
	add(row{name: "wire-inspect", callers: 32, rounds: 6, turn: second}, inspect, handler.with(goal{rateAtLeast: 0.6}))
	add(row{name: "wire-stream", callers: 1, rounds: 3, turn: limit{1, time.Minute}, inBytes: true}, stream)
	add(row{name: "wire-stream", callers: 8, rounds: 2, turn: limit{8, time.Minute}, inBytes: true}, stream)
	add(row{name: "wire-upload", callers: 1, rounds: 3, turn: limit{1, time.Minute}, inBytes: true}, upload)

	printHead(out)
	for _, r := range all {
		if rounds > 0 {
			r.rounds = rounds
		}
		turns, err := r.measure(ctx)
		if err != nil {
			return err
		}
		for _, l := range r.lines(turns) {
			l.print(out)
		}
	}
	fmt.Fprintln(out, "\n| Measured | CPU of one stream, s/GiB | Peak above idle, MiB | 20 slow readers: above idle, MiB |")
	fmt.Fprintln(out, "|---|--:|--:|--:|")
	for i, name := range []string{"own", "connect-node"} {
		if err := servers[i].cost(ctx, name, out); err != nil {
			return err
		}
	}
	return nil
}

type wireServer struct {
	*runner
}

// stream takes as many chunks as it asked for.
func (s *wireServer) stream(ctx context.Context) (int64, error) {
	logs, err := s.StreamWorkloadLogs(ctx, &pb.StreamWorkloadLogsRequest{WorkloadId: "x", TailLines: streamChunks})
	if err != nil {
		return 0, err
	}
	for bytes := int64(0); ; {
		answer, err := logs.Recv()
		if errors.Is(err, io.EOF) {
			return bytes, nil
		}
		if err != nil {
			return bytes, err
		}
		bytes += int64(len(answer.GetChunk().GetData()))
	}
}

// upload sends as many bytes as stream takes, and returns how many of them came.
func (s *wireServer) upload(ctx context.Context) (int64, error) {
	exec, err := s.Exec(ctx)
	if err != nil {
		return 0, err
	}
	request := &pb.ExecRequest{Msg: &pb.ExecRequest_Stdin{Stdin: &pb.ExecStdin{Data: make([]byte, chunkBytes)}}}
	for range streamChunks {
		if err := exec.Send(request); err != nil {
			return 0, err
		}
	}
	if err := exec.CloseSend(); err != nil {
		return 0, err
	}
	answer, err := exec.Recv()
	return int64(answer.GetExit().GetExitCode()), err
}

// cost prints what one stream, and then many slow ones, cost the server's process.
func (s *wireServer) cost(ctx context.Context, name string, out io.Writer) error {
	time.Sleep(2 * time.Second)
	idle, err := s.process.resident()
	if err != nil {
		return err
	}
	before, err := s.process.cpu()
	if err != nil {
		return err
	}
	stop, peak := s.watch(ctx)
	for range 4 {
		if _, err := s.stream(ctx); err != nil {
			return err
		}
	}
	stop()
	after, err := s.process.cpu()
	if err != nil {
		return err
	}
	slow, err := s.readSlowly(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "| %s | %.2f | %.0f | %.0f |\n", name, (after - before).Seconds(), mib(*peak-idle), mib(slow-idle))
	return err
}

// readSlowly returns the greatest resident memory while 20 callers, each on a connection of its own, read little of what
// has no end.
func (s *wireServer) readSlowly(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, slowTime)
	defer cancel()
	for range slowReaders {
		connection, err := grpc.NewClient("passthrough:"+s.process.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return 0, err
		}
		defer connection.Close()
		logs, err := pb.NewRunnerServiceClient(connection).StreamWorkloadLogs(ctx, &pb.StreamWorkloadLogsRequest{WorkloadId: "x", TailLines: endlessChunks})
		if err != nil {
			return 0, err
		}
		go func() {
			for range time.Tick(time.Second * chunkBytes / slowRate) {
				if _, err := logs.Recv(); err != nil {
					return
				}
			}
		}()
	}
	stop, peak := s.watch(ctx)
	<-ctx.Done()
	stop()
	return *peak, nil
}

// watch looks at the resident memory until stop; the greatest is told then.
func (s *wireServer) watch(ctx context.Context) (stop func(), peak *int64) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	peak = new(int64)
	go func() {
		defer close(done)
		for range time.Tick(20 * time.Millisecond) {
			bytes, err := s.process.resident()
			if err != nil || ctx.Err() != nil {
				return
			}
			*peak = max(*peak, bytes)
		}
	}()
	return func() { cancel(); <-done }, peak
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
