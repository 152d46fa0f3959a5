package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	pb "k8s-runner-bench/gen/agynio/api/runner/v1"
)

const (
	logLine = 1024
	// A timestamp of a line, and the space after it.
	stampBytes = 31
	// A read of a log takes some tenths of a second.
	logTime = 30 * time.Second
	// How often it is asked whether a Pod runs.
	askPause = 5 * time.Millisecond
)

// tarOf is an archive of one file of so many random bytes.
func tarOf(size int) []byte {
	var archive bytes.Buffer
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	w := tar.NewWriter(&archive)
	// A bytes.Buffer takes everything.
	_ = w.WriteHeader(&tar.Header{Name: "k8s-runner-bench", Mode: 0o644, Size: int64(size)})
	_, _ = w.Write(data)
	_ = w.Close()
	return archive.Bytes()
}

func (r *runner) putArchive(id string, archive []byte) func(context.Context) (int64, error) {
	request := &pb.PutArchiveRequest{WorkloadId: id, Path: "/tmp", TarPayload: archive}
	return func(ctx context.Context) (int64, error) {
		_, err := r.PutArchive(ctx, request)
		return int64(len(archive)), err
	}
}

// readLog reads the last lines of a log, of so many bytes in all. To `follow` it has no end, and is left when they have come; it
// fails when they do not.
func (r *runner) readLog(id string, bytes int64, follow bool) func(context.Context) (int64, error) {
	request := &pb.StreamWorkloadLogsRequest{WorkloadId: id, ContainerName: "main", TailLines: uint32(bytes / logLine), Follow: follow}
	return func(ctx context.Context) (int64, error) {
		ctx, leave := context.WithTimeout(ctx, logTime)
		defer leave()
		logs, err := r.StreamWorkloadLogs(ctx, request)
		if err != nil {
			return 0, err
		}
		for n := int64(0); ; {
			answer, err := logs.Recv()
			if errors.Is(err, io.EOF) {
				return n, enough(n, bytes)
			}
			if err != nil {
				return n, errors.Join(err, enough(n, bytes))
			}
			n += int64(len(answer.GetChunk().GetData()))
			if follow && n >= bytes {
				return n, nil
			}
		}
	}
}

// readLog asks for timestamps when it is to `follow`, as whoever takes up such a read must after a loss; they are not counted.
func (c *cluster) readLog(id string, bytes int64, follow bool) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		ctx, leave := context.WithTimeout(ctx, logTime)
		defer leave()
		query := url.Values{"tailLines": {fmt.Sprint(bytes / logLine)}}
		most, stamps := int64(math.MaxInt64), int64(0)
		if follow {
			query.Set("follow", "true")
			query.Set("timestamps", "true")
			stamps = bytes / logLine * stampBytes
			most = bytes + stamps
		}
		response, err := c.log(ctx, id, query)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(response.Body, most))
		return n - stamps, errors.Join(err, enough(n-stamps, bytes))
	}
}

// enough is an error when a log is shorter than it should be, as it is where a kubelet keeps less in one file.
func enough(came, bytes int64) error {
	if came < bytes*9/10 {
		return fmt.Errorf("%d bytes of log instead of %d, as where a kubelet's containerLogMaxSize is less", came, bytes)
	}
	return nil
}

// fillLog writes lines to the log of the main container.
func (c *cluster) fillLog(ctx context.Context, id string, bytes int64) error {
	script := fmt.Sprintf("yes %s | head -n %d > /proc/1/fd/1", strings.Repeat("x", logLine-1), bytes/logLine)
	_, err := c.feed(id, nil, "sh", "-c", script)(ctx)
	return err
}

// writeLog writes lines to the log of the main container.
func (c *cluster) writeLog(ctx context.Context, id string) func(string) error {
	return func(line string) error {
		_, err := c.feed(id, nil, "sh", "-c", "echo "+line+" > /proc/1/fd/1")(ctx)
		return err
	}
}

// kubectl runs a command as `kubectl exec` does; the program is that of KUBECTL or of the path.
func (c *cluster) kubectl(id string, argv ...string) func(context.Context) (int64, error) {
	program := os.Getenv("KUBECTL")
	if program == "" {
		program = "kubectl"
	}
	args := append([]string{"exec", "--namespace", c.namespace, "workload-" + id, "--container", "main", "--"}, argv...)
	return func(ctx context.Context) (int64, error) {
		out, err := exec.CommandContext(ctx, program, args...).Output()
		return int64(len(out)), err
	}
}

// launch starts a workload and waits until it runs.
func (r *runner) launch(image string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		id, err := r.startWorkload(ctx, image)
		if err == nil {
			go r.removeWorkload(id) // after the call: what is left behind by a failure ends by itself
		}
		return 0, err
	}
}

// launch does by hand what the runner does for a start: the same Pod under another name.
func (c *cluster) launch(id string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		text, err := c.pod(ctx, id)
		if err != nil {
			return 0, err
		}
		var pod struct {
			Metadata map[string]any `json:"metadata"`
			Spec     map[string]any `json:"spec"`
		}
		if err := json.Unmarshal(text, &pod); err != nil {
			return 0, err
		}
		name := "bench-" + strings.ToLower(rand.Text()[:10])
		delete(pod.Spec, "nodeName")
		body, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": pod.Spec, "metadata": map[string]any{"name": name}})
		if err != nil {
			return 0, err
		}
		target := c.server.JoinPath("api/v1/namespaces", c.namespace, "pods")
		if _, err := c.do(ctx, http.MethodPost, target, body); err != nil {
			return 0, err
		}
		own := target.JoinPath(name)
		defer func() {
			now := *own
			now.RawQuery = "gracePeriodSeconds=0"
			go c.do(context.WithoutCancel(ctx), http.MethodDelete, &now, nil)
		}()
		for {
			text, err := c.do(ctx, http.MethodGet, own, nil)
			if err != nil {
				return 0, err
			}
			var seen struct{ Status struct{ Phase string } }
			if err := json.Unmarshal(text, &seen); err != nil || seen.Status.Phase == "Running" {
				return 0, err
			}
			time.Sleep(askPause)
		}
	}
}

// pod is the Pod of a workload as the API server has it.
func (c *cluster) pod(ctx context.Context, id string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, c.podURL(id, nil), nil)
}

func (c *cluster) do(ctx context.Context, method string, target *url.URL, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header = c.headers.Clone()
	request.Header.Set("Content-Type", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s", method, target.Path, response.Status)
	}
	return text, err
}
