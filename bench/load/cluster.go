package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/websocket"
)

// A cluster is the raw way to the API server, beside which the runner is measured.
type cluster struct {
	server    *url.URL
	namespace string
	headers   http.Header
	tls       *tls.Config
	client    *http.Client
}

// readCluster takes what access.ts prints.
func readCluster(in io.Reader) (*cluster, error) {
	var access struct {
		Server, Namespace string
		Headers           map[string]string
		TLS               struct {
			CA, Cert, Key, ServerName string
			RejectUnauthorized        *bool
		}
	}
	if err := json.NewDecoder(in).Decode(&access); err != nil {
		return nil, fmt.Errorf("no cluster access on stdin: %w", err)
	}
	server, err := url.Parse(access.Server)
	if err != nil {
		return nil, err
	}
	c := &cluster{server: server, namespace: access.Namespace, headers: http.Header{}, tls: &tls.Config{ServerName: access.TLS.ServerName}}
	for name, value := range access.Headers {
		c.headers.Set(name, value)
	}
	if access.TLS.CA != "" {
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM([]byte(access.TLS.CA)) {
			return nil, errors.New("the cluster's CA is no PEM")
		}
	}
	if access.TLS.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(access.TLS.Cert), []byte(access.TLS.Key))
		if err != nil {
			return nil, err
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	c.tls.InsecureSkipVerify = access.TLS.RejectUnauthorized != nil && !*access.TLS.RejectUnauthorized
	c.client = &http.Client{Transport: c.transport()}
	return c, nil
}

func (c *cluster) transport() *http.Transport {
	return &http.Transport{TLSClientConfig: c.tls.Clone(), ForceAttemptHTTP2: true}
}

func (c *cluster) podURL(id string, query url.Values, more ...string) *url.URL {
	target := c.server.JoinPath(append([]string{"api/v1/namespaces", c.namespace, "pods", "workload-" + id}, more...)...)
	target.RawQuery = query.Encode()
	return target
}

// get reads a workload's Pod from the API server.
func (c *cluster) get(id string) func(context.Context) (int64, error) {
	target := c.podURL(id, nil).String()
	return func(ctx context.Context) (int64, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return 0, err
		}
		request.Header = c.headers.Clone()
		response, err := c.client.Do(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		n, err := io.Copy(io.Discard, response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = errors.New(response.Status)
		}
		return n, err
	}
}

// Channels of v5.channel.k8s.io: the first byte of each message.
const (
	stdoutChannel = 1
	statusChannel = 3
)

// exec runs a command over a WebSocket of its own, as `kubectl exec` does, and returns how many bytes of stdout came.
func (c *cluster) exec(id string, argv ...string) func(context.Context) (int64, error) {
	query := url.Values{"command": argv, "container": {"main"}, "stdout": {"true"}, "stderr": {"true"}}
	target := c.podURL(id, query, "exec")
	target.Scheme = strings.Replace(target.Scheme, "http", "ws", 1)
	dialer := websocket.Dialer{TLSClientConfig: c.tls.Clone(), Subprotocols: []string{"v5.channel.k8s.io"}}
	return func(ctx context.Context) (int64, error) {
		socket, response, err := dialer.DialContext(ctx, target.String(), c.headers)
		if err != nil {
			if response != nil {
				err = fmt.Errorf("%s: %w", response.Status, err)
			}
			return 0, err
		}
		defer socket.Close()
		defer context.AfterFunc(ctx, func() { socket.Close() })()
		return readExec(socket)
	}
}

// readExec takes all output up to the status, which comes last; anything but success is an error.
func readExec(socket *websocket.Conn) (int64, error) {
	var bytes int64
	var channel [1]byte
	for {
		_, message, err := socket.NextReader()
		if err != nil {
			return bytes, err
		}
		if _, err := io.ReadFull(message, channel[:]); err != nil {
			return bytes, err
		}
		if channel[0] == statusChannel {
			var status struct{ Status, Message string }
			if err := json.NewDecoder(message).Decode(&status); err != nil {
				return bytes, err
			}
			if status.Status != "Success" {
				return bytes, errors.New(status.Message)
			}
			return bytes, nil
		}
		n, err := io.Copy(io.Discard, message)
		if err != nil {
			return bytes, err
		}
		if channel[0] == stdoutChannel {
			bytes += n
		}
	}
}
