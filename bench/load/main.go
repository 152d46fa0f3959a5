// Command load measures a runner beside its baselines; see ../run.sh, which builds and starts it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Each turn is bounded in calls and time, but a call may hang: this ends the run in any case.
const runTime = 15 * time.Minute

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

func run(ctx context.Context) (err error) {
	image := flag.String("image", "alpine:3.19", "image of the measured workload; needs /bin/sh, echo and head")
	rounds := flag.Int("rounds", 0, "rounds of each row; 0 is the row's own number")
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
	if *wire {
		return measureWire(ctx, *rounds, os.Stdout)
	}
	wanted := func(name string) bool { return flag.NArg() == 0 || slices.Contains(flag.Args(), name) }

	cluster, err := readCluster(os.Stdin)
	if err != nil {
		return err
	}
	shipped, err := start([]string{"GRPC_ADDR=127.0.0.1:0", "LOG_LEVEL=info", "KUBE_NAMESPACE=" + cluster.namespace}, "dist/k8s-runner.js")
	if err != nil {
		return err
	}
	defer shipped.stop()
	baseline, err := start(nil, "bench/baseline.ts")
	if err != nil {
		return err
	}
	defer baseline.stop()
	runner, err := dial(ctx, shipped.addr)
	if err != nil {
		return err
	}
	defer runner.connection.Close()
	bare, err := dial(ctx, baseline.addr)
	if err != nil {
		return err
	}
	defer bare.connection.Close()
	id, err := runner.startWorkload(ctx, *image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.removeWorkload(id)) }()

	printHead(os.Stdout)
	for _, row := range rows(runner, bare, cluster, id) {
		if !wanted(row.name) {
			continue
		}
		if *rounds > 0 {
			row.rounds = *rounds
		}
		turns, failure := row.measure(ctx)
		if failure != nil { // of this row: the others may still be had
			err = errors.Join(err, failure)
			if ctx.Err() != nil {
				return err
			}
			continue
		}
		row.print(os.Stdout, turns)
	}
	if wanted(requestsRow) {
		err = errors.Join(err, countRequests(ctx, cluster, id, os.Stdout))
	}
	return err
}
