// Command k8s-runner-ziti carries connections of one OpenZiti service to the runner, which starts, watches and ends it:
// no OpenZiti SDK runs inside of the runner itself.
//
//	k8s-runner-ziti -service NAME -socket PATH
//
// stdin: the identity JSON, which is kept in memory only; then nothing. Its end ends the process at once, so that none
// outlives its runner. SIGTERM unbinds the service; the process ends after the last connection.
// stdout: one JSON object a line (see event). stderr: what the SDK has to say, JSON lines.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openziti/sdk-golang/ziti"
	"github.com/sirupsen/logrus"
)

const (
	// For each step to a bound service; the runner takes a longer silence for a hang.
	startTimeout = time.Minute
	checkPeriod  = 30 * time.Second
	// A check that takes longer has failed, so that something is told of every one.
	checkTimeout = 20 * time.Second
	// So many failures in a row mean that the identity or the binding is gone for good.
	checkLimit = 5
	// How often a new binding is asked whether a router has taken it.
	boundPeriod = 50 * time.Millisecond
)

// event is a line for the runner: "bound" (a router carries the service), "alive" (a check went well), "lost" (one did
// not, with how many in a row and why), "failed" (with why; the process ends with status 1).
type event struct {
	Event    string `json:"event"`
	Failures int    `json:"failures,omitempty"`
	Error    string `json:"error,omitempty"`
}

// reporter answers how events are written, one at a time. When nobody reads them, the end of stdin tells as much.
func reporter(out io.Writer) func(event) {
	var mutex sync.Mutex
	encoder := json.NewEncoder(out)
	return func(e event) {
		mutex.Lock()
		defer mutex.Unlock()
		_ = encoder.Encode(e)
	}
}

func main() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) // the identity's key is in this memory
	logrus.SetLevel(logrus.WarnLevel)
	logrus.SetFormatter(&logrus.JSONFormatter{})
	service := flag.String("service", "", "OpenZiti service to bind")
	socket := flag.String("socket", "", "Unix socket of the runner")
	flag.Parse()
	report := reporter(os.Stdout)
	if err := run(os.Stdin, *service, *socket, report); err != nil {
		report(event{Event: "failed", Error: err.Error()})
		os.Exit(1)
	}
}

func run(stdin io.Reader, service, socket string, report func(event)) error {
	config, err := readIdentity(stdin, func() { os.Exit(0) })
	if err != nil {
		return fmt.Errorf("parse ziti identity: %w", err)
	}
	var context ziti.Context
	var listener net.Listener
	err = within(startTimeout, func() (err error) { context, err = ziti.NewContext(config); return err })
	if err != nil {
		return fmt.Errorf("create ziti context: %w", err)
	}
	// With the SDK's default options.
	err = within(startTimeout, func() (err error) { listener, err = context.Listen(service); return err })
	if err != nil {
		return fmt.Errorf("listen on ziti service %s: %w", service, err)
	}
	binding, ok := listener.(interface{ GetEstablishedCount() uint })
	if !ok {
		return fmt.Errorf("listen on ziti service %s: the SDK does not tell whether it is bound", service)
	}
	check := func() error {
		if err := context.RefreshServices(); err != nil {
			return err
		}
		// The SDK goes on for ever without a router, or after it was told that the service is not its any more.
		if binding.GetEstablishedCount() == 0 {
			return errors.New("no edge router carries the service")
		}
		return nil
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan error, 2)
	go func() {
		for binding.GetEstablishedCount() == 0 {
			time.Sleep(boundPeriod)
		}
		report(event{Event: "bound"})
	}()
	go func() { ended <- watch(check, checkPeriod, checkTimeout, report) }()
	go func() { ended <- serve(listener, stop, func() (net.Conn, error) { return net.Dial("unix", socket) }) }()
	return <-ended
}

// readIdentity takes the identity from stdin and calls gone at the end of it. Its errors quote nothing of what was read.
func readIdentity(stdin io.Reader, gone func()) (*ziti.Config, error) {
	decoder := json.NewDecoder(stdin)
	config := &ziti.Config{}
	if err := decoder.Decode(config); err != nil {
		return nil, errors.New("stdin holds no identity JSON")
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		gone()
	}()
	return config, nil
}

// watch reports the outcome of check once a period, and returns after checkLimit failures in a row.
func watch(check func() error, period, timeout time.Duration, report func(event)) error {
	failures := 0
	for {
		time.Sleep(period)
		err := within(timeout, check)
		if err == nil {
			failures = 0
			report(event{Event: "alive"})
			continue
		}
		failures++
		if failures == checkLimit {
			return fmt.Errorf("ziti identity is no longer usable after %d checks: %w", failures, err)
		}
		report(event{Event: "lost", Failures: failures, Error: err.Error()})
	}
}

// within does work that has to be done in time. The SDK waits for ever for a controller, and panics at a bad key.
func within(timeout time.Duration, work func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				done <- fmt.Errorf("%v", cause)
			}
		}()
		done <- work()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(timeout):
		return fmt.Errorf("no answer within %s", timeout)
	}
}

// serve relays every connection of the listener to one of its own that dial makes. After stop it accepts no more, and
// returns nil when the last one is over; else it returns why the listener ended.
func serve(listener net.Listener, stop <-chan os.Signal, dial func() (net.Conn, error)) error {
	var stopped atomic.Bool
	go func() {
		<-stop
		stopped.Store(true)
		_ = listener.Close()
	}()
	var relays sync.WaitGroup
	for {
		caller, err := listener.Accept()
		if err != nil {
			if !stopped.Load() {
				return fmt.Errorf("ziti listener ended: %w", err)
			}
			relays.Wait()
			return nil
		}
		relays.Go(func() {
			defer caller.Close()
			runner, err := dial()
			if err != nil {
				logrus.WithError(err).Warn("the runner takes no connection")
				return
			}
			defer runner.Close()
			relay(caller, runner)
		})
	}
}

// relay copies both ways until both have ended. The end of one way is passed on as just that; after a failure both
// connections are closed, so that half of a message never looks like a whole one.
func relay(a, b net.Conn) {
	var both sync.WaitGroup
	pipe := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); err != nil || !ok || half.CloseWrite() != nil {
			_, _ = a.Close(), b.Close()
		}
	}
	both.Go(func() { pipe(a, b) })
	both.Go(func() { pipe(b, a) })
	both.Wait()
}
