package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// overlay is the SDK's listener in memory: connections with half-close, as the SDK's are.
type overlay struct {
	callers chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newOverlay() *overlay {
	return &overlay{callers: make(chan net.Conn), closed: make(chan struct{})}
}

func (o *overlay) Accept() (net.Conn, error) {
	select {
	case caller := <-o.callers:
		return caller, nil
	case <-o.closed:
		return nil, errors.New("listener is closed")
	}
}

func (o *overlay) Close() error   { o.once.Do(func() { close(o.closed) }); return nil }
func (o *overlay) Addr() net.Addr { return nil }

// dial answers the caller's end of a new connection.
func (o *overlay) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	caller, accepted := pair(t)
	o.callers <- accepted
	return caller
}

// pair answers both ends of a connection that can be closed one way at a time.
func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	descriptors, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for index, descriptor := range descriptors {
		file := os.NewFile(uintptr(descriptor), "")
		conn, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[index] = conn.(*net.UnixConn)
		t.Cleanup(func() { _ = conn.Close() })
	}
	return ends[0], ends[1]
}

// runner listens on a Unix socket as the runner does and hands on what it accepts.
func runner(t *testing.T) (string, <-chan *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	accepted := make(chan *net.UnixConn)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- conn.(*net.UnixConn)
		}
	}()
	return path, accepted
}

// serving runs serve over an overlay in memory; ended gets what it returns.
func serving(t *testing.T, path string) (o *overlay, stop chan os.Signal, ended chan error) {
	t.Helper()
	o, stop, ended = newOverlay(), make(chan os.Signal, 1), make(chan error, 1)
	go func() { ended <- serve(o, stop, func() (net.Conn, error) { return net.Dial("unix", path) }) }()
	return o, stop, ended
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, conn net.Conn) string {
	t.Helper()
	data, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestBytesPassBothWaysUnchanged(t *testing.T) {
	path, accepted := runner(t)
	o, _, _ := serving(t, path)
	caller := o.dial(t)
	data := bytes.Repeat([]byte("PRI * HTTP/2.0\r\n\x00\xff"), 1<<16)
	go func() {
		_, _ = caller.Write(data)
		_ = caller.CloseWrite()
	}()
	served := <-accepted
	if got := readAll(t, served); got != string(data) {
		t.Fatalf("%d bytes of %d arrived, or other ones", len(got), len(data))
	}
	// The end of one way is only that: the other goes on.
	go func() {
		_, _ = served.Write(data)
		_ = served.Close()
	}()
	if got := readAll(t, caller); got != string(data) {
		t.Fatalf("%d bytes of %d came back, or other ones", len(got), len(data))
	}
}

func TestHalfCloseFromTheRunner(t *testing.T) {
	path, accepted := runner(t)
	o, _, _ := serving(t, path)
	caller := o.dial(t)
	write(t, caller, "a")
	served := <-accepted
	write(t, served, "answer")
	_ = served.CloseWrite()
	if got := readAll(t, caller); got != "answer" {
		t.Fatalf("got %q", got)
	}
	write(t, caller, "b")
	_ = caller.CloseWrite()
	if got := readAll(t, served); got != "ab" {
		t.Fatalf("got %q", got)
	}
}

func TestManyConnectionsAtATime(t *testing.T) {
	path, accepted := runner(t)
	o, _, _ := serving(t, path)
	go func() {
		for served := range accepted {
			go func() {
				_, _ = io.Copy(served, served)
				_ = served.Close()
			}()
		}
	}()
	var all sync.WaitGroup
	for index := range 100 {
		all.Go(func() {
			caller := o.dial(t)
			text := strings.Repeat("x", index)
			write(t, caller, text)
			_ = caller.CloseWrite()
			if got := readAll(t, caller); got != text {
				t.Errorf("connection %d got %d bytes", index, len(got))
			}
		})
	}
	all.Wait()
}

// broken fails in the middle, as a circuit of the overlay does.
type broken struct{ *net.UnixConn }

func (broken) Read([]byte) (int, error) { return 0, errors.New("circuit lost") }

func TestAFailureIsNoRegularEnd(t *testing.T) {
	caller, accepted := pair(t)
	served, toRunner := pair(t)
	done := make(chan struct{})
	go func() {
		relay(broken{accepted}, toRunner)
		close(done)
	}()
	<-done // though the runner's side was not ended by anyone
	if _, err := served.Write([]byte("x")); err == nil {
		if _, err = served.Write([]byte("x")); err == nil {
			t.Fatal("the runner's side is still open")
		}
	}
	_, _ = caller, accepted
}

func TestARunnerThatTakesNoConnection(t *testing.T) {
	o, _, _ := serving(t, filepath.Join(t.TempDir(), "nothing"))
	for range 2 { // and it goes on after it
		if got := readAll(t, o.dial(t)); got != "" {
			t.Fatalf("got %q", got)
		}
	}
}

func TestStopLetsConnectionsEnd(t *testing.T) {
	path, accepted := runner(t)
	o, stop, ended := serving(t, path)
	caller := o.dial(t)
	write(t, caller, "a")
	served := <-accepted
	if _, err := io.ReadFull(served, make([]byte, 1)); err != nil { // closed with that unread, it would be a failure
		t.Fatal(err)
	}
	stop <- syscall.SIGTERM
	<-o.closed
	select {
	case err := <-ended:
		t.Fatalf("it ended with a connection open: %v", err)
	default:
	}
	write(t, served, "b")
	_ = served.Close()
	if got := readAll(t, caller); got != "b" {
		t.Fatalf("got %q", got)
	}
	_ = caller.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestAListenerThatEndsByItself(t *testing.T) {
	path, _ := runner(t)
	o, _, ended := serving(t, path)
	_ = o.Close()
	if err := <-ended; err == nil || err.Error() != "ziti listener ended: listener is closed" {
		t.Fatalf("got %v", err)
	}
}

func TestFiveFailuresInARow(t *testing.T) {
	// One success resets the count.
	outcomes := []error{nil, errors.New("a"), errors.New("b"), nil, errors.New("c"), errors.New("d"), errors.New("e"),
		errors.New("f"), errors.New("g")}
	var events []event
	next := 0
	err := watch(func() error { next++; return outcomes[next-1] }, time.Millisecond, time.Hour, func(e event) { events = append(events, e) })
	if err == nil || err.Error() != "ziti identity is no longer usable after 5 checks: g" {
		t.Fatalf("got %v", err)
	}
	want := []event{{Event: "alive"}, {"lost", 1, "a"}, {"lost", 2, "b"}, {Event: "alive"}, {"lost", 1, "c"},
		{"lost", 2, "d"}, {"lost", 3, "e"}, {"lost", 4, "f"}}
	if len(events) != len(want) {
		t.Fatalf("got %v", events)
	}
	for index := range want {
		if events[index] != want[index] {
			t.Fatalf("event %d is %v, not %v", index, events[index], want[index])
		}
	}
}

func TestAHangingCheckHasFailed(t *testing.T) {
	var told []event
	err := watch(func() error { select {} }, 0, time.Millisecond, func(e event) { told = append(told, e) })
	if err == nil || len(told) != checkLimit-1 || told[0].Error != "no answer within 1ms" {
		t.Fatalf("got %v and %v", err, told)
	}
}

func TestAPanicIsAnError(t *testing.T) {
	if err := within(time.Hour, func() error { panic("bad key") }); err == nil || err.Error() != "bad key" {
		t.Fatalf("got %v", err)
	}
}

func TestTheIdentityComesThroughStdin(t *testing.T) {
	stdin, runner := io.Pipe()
	gone := make(chan struct{})
	go func() {
		_, _ = io.WriteString(runner, `{"ztAPI":"https://c:1280","id":{"key":"pem:k","cert":"pem:c"}}`+"\n")
	}()
	config, err := readIdentity(stdin, func() { close(gone) })
	if err != nil || config.ZtAPI != "https://c:1280" || config.ID.Key != "pem:k" {
		t.Fatalf("got %v, %v", config, err)
	}
	select {
	case <-gone:
		t.Fatal("gone while stdin is open")
	default:
	}
	_ = runner.Close()
	<-gone
}

func TestNothingOfTheIdentityIsInAnError(t *testing.T) {
	for _, text := range []string{"", "canary", `{"id": canary}`, `{"ztAPI": {"canary": 1}}`, `{"ztAPI":"canary`} {
		_, err := readIdentity(strings.NewReader(text), func() {})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Fatalf("%q: %v", text, err)
		}
	}
}

func TestEventsAreLines(t *testing.T) {
	var out bytes.Buffer
	report := reporter(&out)
	report(event{Event: "bound"})
	report(event{Event: "lost", Failures: 2, Error: "a\nb"})
	want := "{\"event\":\"bound\"}\n{\"event\":\"lost\",\"failures\":2,\"error\":\"a\\nb\"}\n"
	if out.String() != want {
		t.Fatalf("got %q", out.String())
	}
}
