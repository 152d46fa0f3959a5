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
	"slices"
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

// through is the same cluster by way of ../forward.ts, which speaks to it with rights of its own.
func (c *cluster) through(forwarder *process) *cluster {
	passed := *c
	passed.server = &url.URL{Scheme: "http", Host: forwarder.addr}
	passed.client = &http.Client{}
	return &passed
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
	stdinChannel  = 0
	stdoutChannel = 1
	statusChannel = 3
	closeChannel  = 255
)

// feed runs a command to its end with this input, over a WebSocket of its own as `kubectl exec` does.
func (c *cluster) feed(id string, input []byte, argv ...string) execution {
	// With all streams, as the runner has them: its callers may send input to any command.
	query := url.Values{"command": argv, "container": {"main"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
	target := c.podURL(id, query, "exec")
	target.Scheme = strings.Replace(target.Scheme, "http", "ws", 1)
	dialer := websocket.Dialer{TLSClientConfig: c.tls.Clone(), Subprotocols: []string{"v5.channel.k8s.io"}}
	return func(ctx context.Context) (output, error) {
		socket, response, err := dialer.DialContext(ctx, target.String(), c.headers)
		if err != nil {
			if response != nil {
				err = fmt.Errorf("%s: %w", response.Status, err)
			}
			return output{}, err
		}
		defer socket.Close()
		defer context.AfterFunc(ctx, func() { socket.Close() })()
		go writeInput(socket, input)
		return readExec(socket)
	}
}

// writeInput ends early when the connection does; its reader tells why.
func writeInput(socket *websocket.Conn, input []byte) {
	for piece := range slices.Chunk(input, stdinFrame) {
		if socket.WriteMessage(websocket.BinaryMessage, append([]byte{stdinChannel}, piece...)) != nil {
			return
		}
	}
	_ = socket.WriteMessage(websocket.BinaryMessage, []byte{closeChannel, stdinChannel})
}

// readExec takes all output up to the status, which comes last; anything but success is an error.
func readExec(socket *websocket.Conn) (output, error) {
	var out output
	buffer := make([]byte, 64<<10)
	for {
		_, message, err := socket.NextReader()
		if err != nil {
			return out, err
		}
		var channel [1]byte
		if _, err := io.ReadFull(message, channel[:]); err != nil {
			return out, err
		}
		if channel[0] == statusChannel {
			var status struct{ Status, Message string }
			if err := json.NewDecoder(message).Decode(&status); err != nil {
				return out, err
			}
			if status.Status != "Success" {
				return out, errors.New(status.Message)
			}
			return out, nil
		}
		for err == nil {
			var n int
			n, err = message.Read(buffer)
			if channel[0] == stdoutChannel {
				out.take(buffer[:n])
			}
		}
		if !errors.Is(err, io.EOF) {
			return out, err
		}
	}
}
