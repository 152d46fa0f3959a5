// Command load measures a runner beside its baselines; see ../run.sh, which builds and starts it.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Each turn is bounded in calls and time, but a call may hang: this ends the run in any case.
const runTime = 30 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Rows that are not in `rows`.
const (
	idleRow  = "idle-execs"
	scaleRow = "scale"
)

// names of all that can be measured alone, in order.
func names() []string {
	all := []string{scaleRow}
	for _, row := range rows(&runner{}, &runner{}, &process{}, &cluster{server: &url.URL{}, tls: &tls.Config{}}, "", flags{}) {
		all = append(all, row.name)
	}
	return append(slices.Compact(all), idleRow, requestsRow)
}

type flags struct {
	image  string
	rounds int
	// A kubelet takes an inotify instance for each follower, and Linux gives a user 128 unless told otherwise.
	followers int
	logBytes  int64
	longBytes int64
	quick     bool
	// The cluster has cores of its own; see ../apart.sh.
	apart bool
	json  string
}

func run(ctx context.Context) error {
	var f flags
	flag.StringVar(&f.image, "image", "alpine:3.19", "image of the measured workload; needs a shell and the usual tools")
	flag.IntVar(&f.rounds, "rounds", 0, "rounds of each row; 0 is the row's own number")
	flag.IntVar(&f.followers, "followers", 200, "followers of a log; the node's fs.inotify.max_user_instances must be above")
	flag.Int64Var(&f.logBytes, "log-bytes", 8<<20, "length of the log that is read, less than what the node's kubelet keeps in one file (containerLogMaxSize, 10 MiB unless told otherwise)")
	flag.Int64Var(&f.longBytes, "long-log-bytes", 0, "length of another log, as long as what executions print; for kubelets that keep so much in one file. 0: none")
	flag.BoolVar(&f.quick, "quick", false, "one round of each row, and no 10,000 Pods; shows how, proves little")
	flag.BoolVar(&f.apart, "apart", false, "the cluster has cores of its own, and streams are held to the raw ones; ../apart.sh sees to that")
	flag.StringVar(&f.json, "json", "", "file for the figures, which ../report.ts reads")
	wire := flag.Bool("wire", false, "instead of all rows, compare the own gRPC with connect-node's; needs no cluster")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Rows: %s\n", strings.Join(names(), ", "))
		flag.PrintDefaults()
	}
	flag.Parse()
	for _, name := range flag.Args() {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("no row %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	if f.quick && f.rounds == 0 {
		f.rounds = 1
	}
	if *wire {
		return measureWire(ctx, f.rounds, os.Stdout)
	}
	cluster, err := readCluster(os.Stdin)
	if err != nil {
		return err
	}
	return f.measure(ctx, cluster, os.Stdout)
}

func (f flags) measure(ctx context.Context, cluster *cluster, out io.Writer) (err error) {
	wanted := func(name string) bool { return flag.NArg() == 0 || slices.Contains(flag.Args(), name) }
	runner, err := serve(ctx, []string{"GRPC_ADDR=127.0.0.1:0", "LOG_LEVEL=info", "KUBE_NAMESPACE=" + cluster.namespace}, "dist/k8s-runner")
	if err != nil {
		return err
	}
	defer runner.stop()
	bare, err := serve(ctx, handlerEnv, "bench/baseline.ts")
	if err != nil {
		return err
	}
	defer bare.stop()
	forwarder, err := start(handlerEnv, "bench/forward.ts")
	if err != nil {
		return err
	}
	defer forwarder.stop()
	id, err := runner.startWorkload(ctx, f.image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.removeWorkload(id)) }()
	pod, err := cluster.pod(ctx, id)
	if err != nil {
		return err
	}

	report := newReport(f.quick)
	defer func() { // also of a run that is interrupted
		if f.json != "" {
			err = errors.Join(err, report.write(f.json))
		}
	}()
	printHead(out)
	if wanted(scaleRow) {
		s := &scale{report: report, out: out, rounds: f.rounds, pod: pod, id: id}
		for _, size := range []int{1, 1_000, 10_000} {
			if size < 10_000 || !f.quick {
				err = errors.Join(err, s.measure(ctx, size))
			}
		}
	}
	for _, row := range rows(runner, bare, forwarder, cluster, id, f) {
		if !wanted(row.name) {
			continue
		}
		if f.rounds > 0 {
			row.rounds = f.rounds
		}
		turns, failure := row.measure(ctx)
		if failure != nil { // of this row: the others may still be had
			err = errors.Join(err, failure)
			if ctx.Err() != nil {
				return err
			}
			continue
		}
		for _, l := range row.lines(turns) {
			report.Lines = append(report.Lines, l)
			l.print(out)
		}
	}
	if wanted(idleRow) {
		err = errors.Join(err, idleSessions(ctx, report, out, runner, id, idleExecs))
	}
	if wanted(requestsRow) {
		err = errors.Join(err, countRequests(ctx, cluster, id, report, out))
	}
	peak, failure := runner.process.peak()
	memory := "memory"
	if f.apart {
		memory += ", apart"
	}
	report.figure(out, figure{Row: memory, Measured: "most that the runner had in this run", Unit: "MiB", Value: mib(peak)}, 0)
	return errors.Join(err, failure)
}

// serve starts a process and connects to it.
func serve(ctx context.Context, env []string, args ...string) (*runner, error) {
	p, err := start(env, args...)
	if err != nil {
		return nil, err
	}
	r, err := dial(ctx, p)
	if err != nil {
		p.stop()
	}
	return r, err
}
