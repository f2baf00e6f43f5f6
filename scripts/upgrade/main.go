// Command upgrade runs an older release and this one on the same data, and says what happens.
//
//	go run ./scripts/upgrade -from COMMIT    a release of the history, and this tree
//	go run ./scripts/upgrade -next           this tree, and it as the next release (build tag ovsnext)
//
// A release that can be a host of a cluster is run on three hosts, which are stopped and started
// with the newer one after the other, while clients go on. While one of them is old, no group
// can be raised; then the groups are, and the older release is refused. A release of one
// machine only leaves its data directory to the newer one, which makes it the first of three
// hosts.
//
// Everything runs on this machine, on addresses of loopback.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	from := flag.String("from", "", "the older release, a `commit`")
	next := flag.Bool("next", false, "from this tree to what stands for the release behind it")
	flag.Parse()
	if (*from == "") == !*next || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "upgrade: give -from COMMIT, or -next")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *from); err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
}

// run builds both releases and upgrades, in a directory that is removed afterwards.
func run(ctx context.Context, from string) error {
	dir, err := os.MkdirTemp("", "ovs-upgrade-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	older, newer, err := releases(ctx, dir, from)
	if err != nil {
		return err
	}
	u := &upgrade{ctx: ctx, dir: dir, older: older, newer: newer, say: say}
	return u.run()
}

// releases builds the older release, this tree if from is "", and the newer one.
func releases(ctx context.Context, dir, from string) (older, newer release, err error) {
	if from == "" {
		if older, err = build(ctx, "this release", ".", dir); err == nil {
			newer, err = build(ctx, "the next release", ".", dir, "-tags", "ovsnext")
		}
		return older, newer, err
	}
	if older, err = buildCommit(ctx, from, dir); err == nil {
		newer, err = build(ctx, "this release", ".", dir)
	}
	return older, newer, err
}
