package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	pb "k8s-runner-bench/gen/agynio/api/runner/v1"
)

// A follower reads a log as it grows, line by line, until it returns.
type follower func(ctx context.Context, line func(string)) error

func (r *runner) follow(id string) follower {
	return func(ctx context.Context, line func(string)) error {
		logs, err := r.StreamWorkloadLogs(ctx, &pb.StreamWorkloadLogsRequest{WorkloadId: id, ContainerName: "main", Follow: true, TailLines: 1})
		if err != nil {
			return err
		}
		for rest := ""; ; {
			answer, err := logs.Recv()
			if err != nil {
				return err
			}
			lines := strings.Split(rest+string(answer.GetChunk().GetData()), "\n")
			for _, each := range lines[:len(lines)-1] {
				line(each)
			}
			rest = lines[len(lines)-1]
		}
	}
}

func (c *cluster) log(ctx context.Context, id string, query url.Values) (*http.Response, error) {
	query.Set("container", "main")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.podURL(id, query, "log").String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header = c.headers.Clone()
	response, err := c.client.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = errors.New(response.Status)
	}
	return response, err
}

func (c *cluster) follow(id string) follower {
	return func(ctx context.Context, line func(string)) error {
		response, err := c.log(ctx, id, url.Values{"follow": {"true"}, "tailLines": {"1"}})
		if err != nil {
			return err
		}
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			line(lines.Text())
		}
		return lines.Err()
	}
}

// following tells how late many followers hear of lines that `write` writes to the log.
func following(ctx context.Context, follow follower, count, lines int, write func(string) error) (turn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		all  turn
		lock sync.Mutex
		at   = map[string]time.Time{}
		left = map[string]*sync.WaitGroup{}
		done sync.WaitGroup
	)
	heard := func(line string) {
		lock.Lock()
		defer lock.Unlock()
		if wrote, known := at[line]; known {
			all.latencies = append(all.latencies, time.Since(wrote))
			left[line].Done()
		}
	}
	for range count {
		done.Go(func() {
			if err := follow(ctx, heard); ctx.Err() == nil {
				cancel(fmt.Errorf("a follower has ended: %w", err))
			}
		})
	}
	say := func(line string) error {
		all := &sync.WaitGroup{}
		all.Add(count)
		lock.Lock()
		at[line], left[line] = time.Now(), all
		lock.Unlock()
		if err := write(line); err != nil {
			return err
		}
		told := make(chan struct{})
		go func() { all.Wait(); close(told) }()
		select {
		case <-told:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(30 * time.Second):
			return fmt.Errorf("not every follower heard of %q", line)
		}
	}
	run := time.Now().UnixNano()
	time.Sleep(2 * time.Second) // until all follow; who begins late would be told of the last line only
	if err := say(fmt.Sprintf("first-%d", run)); err != nil {
		return all, err
	}
	lock.Lock()
	all.latencies = nil
	lock.Unlock()
	begun := time.Now()
	for i := range lines {
		if err := say(fmt.Sprintf("line-%d-%d", run, i)); err != nil {
			return all, err
		}
	}
	all.elapsed = time.Since(begun)
	cancel(nil)
	done.Wait()
	return all, nil
}
