package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "k8s-runner-bench/gen/agynio/api/runner/v1"
)

const (
	readyTime   = 20 * time.Second
	runningTime = 60 * time.Second
	removeTime  = 10 * time.Second
	listBytes   = 32 << 20
	// A run that is killed leaves its workload; the Pod then ends by itself.
	workloadScript = "trap exit TERM; sleep 1800 & wait"
)

// A runner is a client of RunnerService with one connection.
type runner struct {
	pb.RunnerServiceClient
	connection *grpc.ClientConn
	process    *process
}

// dial connects and waits for the first answer, so that no measured call pays for the connection.
func dial(ctx context.Context, p *process) (*runner, error) {
	connection, err := grpc.NewClient("passthrough:"+p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(listBytes)))
	if err != nil {
		return nil, err
	}
	r := &runner{pb.NewRunnerServiceClient(connection), connection, p}
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if _, err := r.Ready(ctx, &pb.ReadyRequest{}, grpc.WaitForReady(true)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not ready: %w", p.addr, err), connection.Close())
	}
	return r, nil
}

// stop ends the connection and the process.
func (r *runner) stop() {
	r.connection.Close()
	r.process.stop()
}

// startWorkload returns the id of a workload that runs.
func (r *runner) startWorkload(ctx context.Context, image string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runningTime)
	defer cancel()
	main := &pb.ContainerSpec{Image: image, Entrypoint: "/bin/sh", Cmd: []string{"-c", workloadScript}}
	started, err := r.StartWorkload(ctx, &pb.StartWorkloadRequest{Main: main})
	if err != nil {
		return "", err
	}
	for {
		state, err := r.InspectWorkload(ctx, &pb.InspectWorkloadRequest{WorkloadId: started.Id})
		if err == nil && state.StateRunning {
			return started.Id, nil
		}
		if err != nil {
			return "", errors.Join(fmt.Errorf("the workload does not run: %w", err), r.removeWorkload(started.Id))
		}
		time.Sleep(askPause)
	}
}

// removeWorkload works also when the run was interrupted.
func (r *runner) removeWorkload(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTime)
	defer cancel()
	_, err := r.RemoveWorkload(ctx, &pb.RemoveWorkloadRequest{WorkloadId: id, Force: true})
	return err
}

func (r *runner) ready(ctx context.Context) (int64, error) {
	answer, err := r.Ready(ctx, &pb.ReadyRequest{})
	if err == nil && answer.Status != "ok" {
		err = fmt.Errorf("status %q", answer.Status)
	}
	return 0, err
}

func (r *runner) inspect(id string) func(context.Context) (int64, error) {
	request := &pb.InspectWorkloadRequest{WorkloadId: id}
	return func(ctx context.Context) (int64, error) {
		answer, err := r.InspectWorkload(ctx, request)
		if err == nil && !answer.StateRunning {
			err = fmt.Errorf("state %q", answer.StateStatus)
		}
		return 0, err
	}
}

// feed runs a command to its end with this input; anything but exit code 0 is an error.
func (r *runner) feed(id string, input []byte, argv ...string) execution {
	request := &pb.ExecRequest{Msg: &pb.ExecRequest_Start{Start: &pb.ExecStartRequest{TargetId: id, CommandArgv: argv}}}
	return func(ctx context.Context) (output, error) {
		var out output
		stream, err := r.Exec(ctx)
		if err != nil {
			return out, err
		}
		if err := stream.Send(request); err != nil {
			return out, err
		}
		go func() {
			for piece := range slices.Chunk(input, stdinFrame) {
				if stream.Send(&pb.ExecRequest{Msg: &pb.ExecRequest_Stdin{Stdin: &pb.ExecStdin{Data: piece}}}) != nil {
					return // the end of the answers tells why
				}
			}
			_ = stream.CloseSend()
		}()
		var exit *pb.ExecExit
		for {
			answer, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return out, err
			}
			switch event := answer.Event.(type) {
			case *pb.ExecResponse_Stdout:
				out.take(event.Stdout.Data)
			case *pb.ExecResponse_Exit:
				exit = event.Exit
			case *pb.ExecResponse_Error:
				return out, fmt.Errorf("%s: %s", event.Error.Code, event.Error.Message)
			}
		}
		if exit.GetReason() != pb.ExecExitReason_EXEC_EXIT_REASON_COMPLETED || exit.GetExitCode() != 0 {
			return out, fmt.Errorf("the command ended with %s, exit code %d", exit.GetReason(), exit.GetExitCode())
		}
		return out, nil
	}
}
