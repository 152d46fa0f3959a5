package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTime = 20 * time.Second
	stopTime  = 25 * time.Second // the runner gives running calls 20 s
	// Of /proc/<pid>/stat a second, on every Linux of today.
	clockTicks = 100
)

// The bare handler and the forwarder have all that Bun gives them, so that nobody is measured beside one that is held back.
var handlerEnv = []string{"BUN_JSC_useFTLJIT=1"}

// A process serves at addr until it is stopped.
type process struct {
	addr    string
	command *exec.Cmd
}

// start runs a server, TypeScript under Bun, and waits for the log line on its stderr that tells its address.
func start(env []string, args ...string) (*process, error) {
	file := args[0]
	if strings.HasSuffix(file, ".ts") {
		args = append([]string{"bun"}, args...)
	}
	command := exec.Command(args[0], args[1:]...)
	command.Env = append(os.Environ(), env...)
	// A group of its own: an interrupt from the keyboard must not end the runner before its workload is removed.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command}
	address := make(chan string, 1)
	go tellAddress(log, address)
	select {
	case text := <-address:
		if addr, found := strings.CutPrefix(text, "addr "); found {
			p.addr = addr
			return p, nil
		}
		p.stop()
		return nil, fmt.Errorf("%s did not start: %s", file, text)
	case <-time.After(startTime):
		p.stop()
		return nil, fmt.Errorf("%s told no address within %s", file, startTime)
	}
}

// tellAddress sends "addr host:port" once it is told, or the log's last line when it ends before; warnings are passed on.
func tellAddress(log io.Reader, address chan<- string) {
	lines := bufio.NewScanner(log)
	last := "no output"
	for told := false; lines.Scan(); last = lines.Text() {
		var line struct{ Addr, Level string }
		_ = json.Unmarshal(lines.Bytes(), &line) // what is no JSON has no address
		if line.Addr != "" && !told {
			told = true
			address <- "addr " + line.Addr
		}
		if line.Level == "warn" || line.Level == "error" {
			fmt.Fprintln(os.Stderr, lines.Text())
		}
	}
	select {
	case address <- last:
	default: // it was told
	}
}

// self is the process of the generator, which is the raw client as well.
func self() *process {
	return &process{command: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
}

// stop ends the process, by force if it must.
func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended
	kill := time.AfterFunc(stopTime, func() { _ = p.command.Process.Kill() })
	defer kill.Stop()
	_ = p.command.Wait() // how a stopped process ends does not matter
}

// resident is the memory that it has now, in bytes.
func (p *process) resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(status))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// cpu is the time of all cores that the process has used.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	// Fields after the name, which may hold anything but ends with the last bracket; utime and stime are the 12th and 13th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks, err
}

// peak is the most memory that it has had, in bytes.
func (p *process) peak() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0, fmt.Errorf("no VmHWM of process %d", p.command.Process.Pid)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10, err
}
