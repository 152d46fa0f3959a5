package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	pb "k8s-runner-bench/gen/agynio/api/runner/v1"
)

// A session is a command that runs: what is typed goes in, what it says comes out.
type session interface {
	send(data []byte) error
	receive() ([]byte, error)
	close()
}

type opener func(context.Context) (session, error)

// A session that has not said by then that it is ready is lost.
const openTime = 5 * time.Second

// More than anybody types in a turn.
const keysAtMost = 1000

// Echoes every byte as soon as it is typed, once it has said that it does.
var typing = []string{"sh", "-c", fmt.Sprintf("stty raw -echo; echo ready; exec dd bs=1 count=%d 2>/dev/null", keysAtMost)}

// open starts a command through the runner; it ends with ctx at the latest.
func (r *runner) open(id string, tty bool, argv ...string) opener {
	return func(ctx context.Context) (session, error) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := r.Exec(ctx)
		if err != nil {
			cancel()
			return nil, err
		}
		s := &runnerSession{stream, cancel}
		start := &pb.ExecStartRequest{TargetId: id, CommandArgv: argv, Options: &pb.ExecOptions{Tty: tty, SeparateStderr: !tty}}
		if err := stream.Send(&pb.ExecRequest{Msg: &pb.ExecRequest_Start{Start: start}}); err != nil {
			s.close()
			return nil, err
		}
		answer, err := stream.Recv()
		if err == nil && answer.GetStarted() == nil {
			err = fmt.Errorf("not started: %v", answer)
		}
		if err != nil {
			s.close()
			return nil, err
		}
		return s, nil
	}
}

type runnerSession struct {
	stream pb.RunnerService_ExecClient
	cancel context.CancelFunc
}

func (s *runnerSession) send(data []byte) error {
	return s.stream.Send(&pb.ExecRequest{Msg: &pb.ExecRequest_Stdin{Stdin: &pb.ExecStdin{Data: data}}})
}

func (s *runnerSession) receive() ([]byte, error) {
	answer, err := s.stream.Recv()
	if err != nil {
		return nil, err
	}
	if out := answer.GetStdout(); out != nil {
		return out.Data, nil
	}
	return nil, fmt.Errorf("no output: %v", answer)
}

func (s *runnerSession) close() { s.cancel() }

// open is the same over a WebSocket to the API server.
func (c *cluster) open(id string, tty bool, argv ...string) opener {
	query := url.Values{"command": argv, "container": {"main"}, "stdin": {"true"}, "stdout": {"true"}, "tty": {fmt.Sprint(tty)}}
	target := c.podURL(id, query, "exec")
	target.Scheme = strings.Replace(target.Scheme, "http", "ws", 1)
	dialer := websocket.Dialer{TLSClientConfig: c.tls.Clone(), Subprotocols: []string{"v5.channel.k8s.io"}}
	return func(ctx context.Context) (session, error) {
		socket, _, err := dialer.DialContext(ctx, target.String(), c.headers)
		if err != nil {
			return nil, err
		}
		return &rawSession{socket, context.AfterFunc(ctx, func() { socket.Close() })}, nil
	}
}

type rawSession struct {
	socket *websocket.Conn
	stop   func() bool
}

func (s *rawSession) send(data []byte) error {
	return s.socket.WriteMessage(websocket.BinaryMessage, append([]byte{stdinChannel}, data...))
}

func (s *rawSession) receive() ([]byte, error) {
	for {
		_, message, err := s.socket.ReadMessage()
		if err != nil || len(message) == 0 {
			return nil, fmt.Errorf("the command has ended: %w", err)
		}
		if message[0] == stdoutChannel && len(message) > 1 {
			return message[1:], nil
		}
		if message[0] == statusChannel {
			return nil, fmt.Errorf("the command has ended: %s", message[1:])
		}
	}
}

func (s *rawSession) close() { s.stop(); s.socket.Close() }

// ready waits until the command of `typing` echoes. A raw session loses its first output now and then: it gets as many
// tries as it is given, where the runner gets one.
func (open opener) ready(tries int) opener {
	return func(ctx context.Context) (session, error) {
		for try := 1; ; try++ {
			s, err := open(ctx)
			if err != nil {
				return nil, err
			}
			late := time.AfterFunc(openTime, s.close)
			for text := ""; err == nil && !strings.Contains(text, "ready"); {
				var data []byte
				data, err = s.receive()
				text += string(data)
			}
			if late.Stop() && err == nil {
				return s, nil
			}
			s.close()
			if try == tries {
				return nil, fmt.Errorf("a command did not say that it is ready: %w", err)
			}
		}
	}
}

// openAll opens sessions, some at a time.
func openAll(ctx context.Context, open opener, count int) ([]session, error) {
	ctx, fail := context.WithCancelCause(ctx)
	sessions := make([]session, count)
	next := make(chan int)
	var openers sync.WaitGroup
	for range 8 {
		openers.Go(func() {
			for i := range next {
				s, err := open(context.WithoutCancel(ctx))
				if err != nil {
					fail(err)
					continue
				}
				sessions[i] = s
			}
		})
	}
	for i := range count {
		if ctx.Err() == nil {
			next <- i
		}
	}
	close(next)
	openers.Wait()
	err := context.Cause(ctx)
	fail(nil)
	if err != nil {
		closeAll(sessions)
		return nil, err
	}
	return sessions, nil
}

func closeAll(sessions []session) {
	for _, s := range sessions {
		if s != nil {
			s.close()
		}
	}
}

// endAll types what is left to type and waits for the ends of all, so that the next turn finds a node with nothing to do: a
// terminal that is only closed leaves its command running, or is hung up later.
func endAll(sessions []session) {
	var all sync.WaitGroup
	for _, s := range sessions {
		all.Go(func() {
			defer time.AfterFunc(openTime, s.close).Stop()
			for err := s.send(bytes.Repeat([]byte("x"), keysAtMost)); err == nil; {
				_, err = s.receive()
			}
		})
	}
	all.Wait()
	closeAll(sessions)
}

// typists lets every session type a key now and then, and waits for its echo.
func typists(ctx context.Context, open opener, count int, every, length time.Duration) (turn, error) {
	var all turn
	sessions, err := openAll(ctx, open, count)
	if err != nil {
		return all, err
	}
	defer endAll(sessions)
	var lock sync.Mutex
	var typists sync.WaitGroup
	begun := time.Now()
	for i, s := range sessions {
		typists.Go(func() {
			time.Sleep(every * time.Duration(i) / time.Duration(count)) // not all at once
			for begun := time.Now(); time.Since(begun) < length; time.Sleep(every) {
				at := time.Now()
				failure := s.send([]byte("x"))
				for text := ""; failure == nil && !strings.Contains(text, "x"); {
					var data []byte
					data, failure = s.receive()
					text += string(data)
				}
				lock.Lock()
				if failure != nil {
					err = failure
				}
				all.latencies = append(all.latencies, time.Since(at))
				lock.Unlock()
				if failure != nil {
					return
				}
			}
		})
	}
	typists.Wait()
	all.elapsed = time.Since(begun)
	return all, err
}
