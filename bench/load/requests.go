package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	requestsRow  = "inspect-requests"
	inspectCalls = 1_000
	countTime    = 2 * time.Minute
)

// countRequests tells how many requests a runner makes to the API server while it answers calls of InspectWorkload. The
// runner is one of its own that reaches the cluster through a counting proxy. Its watch, which the API server ends every
// half minute, is counted apart.
func countRequests(ctx context.Context, c *cluster, id string, rep *report, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	proxy, err := c.serveCounting()
	if err != nil {
		return err
	}
	defer proxy.close()
	counted, err := start([]string{
		"GRPC_ADDR=127.0.0.1:0", "LOG_LEVEL=info", "KUBE_NAMESPACE=" + c.namespace,
		"KUBECONFIG=" + proxy.kubeconfig, "KUBERNETES_SERVICE_HOST=", // empty: not as inside of a Pod
	}, "dist/k8s-runner")
	if err != nil {
		return err
	}
	runner, err := dial(ctx, counted)
	if err != nil {
		counted.stop()
		return err
	}
	defer runner.stop()
	inspect := runner.inspect(id)
	if _, err := inspect(ctx); err != nil { // waits for the first list
		return err
	}
	before, watchesBefore := proxy.requests.Load(), proxy.watches.Load()
	if before+watchesBefore == 0 { // a first list is streamed by a watch where the server can
		return fmt.Errorf("%s: the proxy saw neither LIST nor watch: it does not count", requestsRow)
	}
	for range inspectCalls {
		if _, err := inspect(ctx); err != nil {
			return err
		}
	}
	f := figure{Row: requestsRow, Measured: fmt.Sprintf("requests to the API server during %d calls of InspectWorkload", inspectCalls)}
	f.Value = float64(proxy.requests.Load() - before)
	f.Goals = []verdict{{"none", f.Value == 0}}
	rep.figure(out, f, 0)
	fmt.Fprintf(out, "(and %d renewals of the watch; %d requests and %d watches before them)\n", proxy.watches.Load()-watchesBefore, before, watchesBefore)
	return nil
}

// A countingProxy passes on to the API server what its kubeconfig's user asks for.
type countingProxy struct {
	requests, watches atomic.Int64
	kubeconfig        string
	server            *http.Server
}

func (c *cluster) serveCounting() (*countingProxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "k8s-runner-bench-")
	if err != nil {
		return nil, err
	}
	// Others on the machine shall not use the cluster through this port.
	token := rand.Text()
	p := &countingProxy{kubeconfig: filepath.Join(dir, "config")}
	forward := &httputil.ReverseProxy{
		Transport:     c.transport(),
		FlushInterval: -1, // a watch is read as it comes
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(c.server)
			for name := range c.headers {
				r.Out.Header.Set(name, c.headers.Get(name))
			}
		},
	}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		if r.URL.Query().Has("watch") {
			p.watches.Add(1)
		} else {
			p.requests.Add(1)
		}
		forward.ServeHTTP(w, r)
	})}
	go p.server.Serve(listener)
	return p, writeKubeconfig(p.kubeconfig, listener.Addr().String(), token)
}

func writeKubeconfig(file, addr, token string) error {
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: bench,
contexts: [{name: bench, context: {cluster: bench, user: bench}}],
clusters: [{name: bench, cluster: {server: "http://%s", insecure-skip-tls-verify: true}}],
users: [{name: bench, user: {token: "%s"}}]}
`, addr, token)
	return os.WriteFile(file, []byte(config), 0o600)
}

func (p *countingProxy) close() {
	p.server.Close()
	os.RemoveAll(filepath.Dir(p.kubeconfig))
}
