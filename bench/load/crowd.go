package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Pods that have one label in common: the hits of a search.
const groupSize = 10

// A crowd is as much of an API server as a runner reads: LIST and a watch in which nothing happens, of many Pods that are
// copies of a real one. So rows by number of workloads need no cluster of that size.
type crowd struct {
	kubeconfig string
	pods       []json.RawMessage
	server     *http.Server
}

// workloadId of the Pod at index.
func (c *crowd) workloadID(index int) string {
	return fmt.Sprintf("00000000-0000-4000-8000-%012d", index%len(c.pods))
}

// serveCrowd copies the Pod that a cluster has of the workload id.
func serveCrowd(pod []byte, id string, size int) (*crowd, error) {
	dir, err := os.MkdirTemp("", "k8s-runner-bench-")
	if err != nil {
		return nil, err
	}
	c := &crowd{kubeconfig: filepath.Join(dir, "config"), pods: make([]json.RawMessage, size)}
	for i := range c.pods {
		if c.pods[i], err = copyOf(pod, id, c.workloadID(i), i); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	token := rand.Text()
	c.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		c.serve(w, r)
	})}
	go c.server.Serve(listener)
	return c, writeKubeconfig(c.kubeconfig, listener.Addr().String(), token)
}

func copyOf(pod []byte, id, newID string, index int) (json.RawMessage, error) {
	var copied map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(pod), id, newID)), &copied); err != nil {
		return nil, err
	}
	metadata, _ := copied["metadata"].(map[string]any)
	labels, _ := metadata["labels"].(map[string]any)
	if labels == nil {
		return nil, fmt.Errorf("the Pod of %s has no labels", id)
	}
	metadata["uid"] = newID
	metadata["resourceVersion"] = fmt.Sprint(index + 1)
	labels["workload_key"] = newID
	labels["group"] = fmt.Sprint("g", index/groupSize)
	return json.Marshal(copied)
}

func (c *crowd) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	query := r.URL.Query()
	version := fmt.Sprint(len(c.pods) + 1)
	switch {
	case !strings.HasSuffix(r.URL.Path, "/pods"):
		fmt.Fprintf(w, `{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"%s"},"items":[]}`, version)
	case !query.Has("watch"):
		items := c.pods
		if query.Get("limit") == "1" {
			items = nil
		}
		fmt.Fprintf(w, `{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"%s"},"items":`, version)
		_ = json.NewEncoder(w).Encode(append([]json.RawMessage{}, items...))
		_, _ = io.WriteString(w, "}")
	default:
		if query.Has("sendInitialEvents") {
			for _, pod := range c.pods {
				fmt.Fprintf(w, "{\"type\":\"ADDED\",\"object\":%s}\n", pod)
			}
		}
		// As long as it is asked for, as an API server does; not to be asked is for ever.
		over := make(<-chan time.Time)
		if seconds, err := strconv.Atoi(query.Get("timeoutSeconds")); err == nil {
			over = time.After(time.Duration(seconds) * time.Second)
		}
		// What ends the first list; and again, so that the watch shows signs of life.
		for {
			fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"%s","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n", version)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-over:
				return
			case <-time.After(5 * time.Second):
			}
		}
	}
}

func (c *crowd) close() {
	c.server.Close()
	os.RemoveAll(filepath.Dir(c.kubeconfig))
}

// start runs a runner whose cluster this is, and returns how long it took to serve, and to have its first list.
func (c *crowd) start(ctx context.Context) (r *runner, serving, synced time.Duration, err error) {
	at := time.Now()
	p, err := start([]string{
		"GRPC_ADDR=127.0.0.1:0", "LOG_LEVEL=info", "KUBE_NAMESPACE=bench",
		"KUBECONFIG=" + c.kubeconfig, "KUBERNETES_SERVICE_HOST=", // empty: not as inside of a Pod
	}, "dist/k8s-runner")
	if err != nil {
		return nil, 0, 0, err
	}
	serving = time.Since(at)
	r, err = dial(ctx, p)
	if err != nil {
		p.stop()
		return nil, 0, 0, err
	}
	// Waits for the first list, whatever it tells of this workload.
	if _, err = r.inspect(c.workloadID(0))(ctx); err != nil {
		r.stop()
		return nil, 0, 0, err
	}
	return r, serving, time.Since(at), nil
}
