// Command bench compares ovs with its peers on one machine and prints a table: figure,
// peer's figure, ratio, bar, pass or miss.
//
// The contenders of a case run in turn, round after round (A B C A B C). Each runs on
// data that was written in full beforehand, and dirty pages are written out between two
// runs. A figure is the median of the rounds, with its range. The halt-polling setting,
// which moves every latency by a factor of two, is the same for all and is printed. So
// is the time stolen by the hypervisor.
//
//	go run ./scripts/bench                   everything, about 12 minutes
//	go run ./scripts/bench -quick            one short round of each
//	go run ./scripts/bench -only 'write'     the cases that match
//
// With "guard" in front it compares the work tree with a commit instead, and says which
// figures are worse; package guard has the rule.
//
//	go run ./scripts/bench guard -base HEAD~1
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"openvstorage/scripts/cpu"
)

// Sizes in bytes.
const (
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// options is the command line.
type options struct {
	only     *regexp.Regexp
	rounds   int
	time     time.Duration // of a run that is limited by time
	long     time.Duration // of the sustained run
	quick    bool
	haltPoll string // nanoseconds; "": leave it
	fuseRing string // Y or N; "": leave it
	dir      string
	json     string
	standIn  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	if len(os.Args) > 1 && os.Args[1] == "guard" {
		os.Exit(guardMain(ctx, os.Args[2:]))
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	only := f.String("only", "", "run only the cases whose name matches this regular `expression`")
	f.IntVar(&o.rounds, "rounds", 3, "rounds of each case; the median counts")
	seconds := f.Float64("time", 4, "`seconds` of a run")
	f.BoolVar(&o.quick, "quick", false, "one round of one second: a check of the bench, not a measurement")
	f.StringVar(&o.haltPoll, "haltpoll", "", "set guest_halt_poll_ns to this for the whole bench (root); it is put back at the end")
	f.StringVar(&o.fuseRing, "fuse-ring", "", "let FUSE use an io_uring for the whole bench (root), `Y or N`; it is put back at the end")
	f.StringVar(&o.dir, "dir", "", "work in a new directory below this one, on the disk to be measured (default: the temporary directory)")
	f.StringVar(&o.json, "json", "bench.json", "write the result to this `file` too; empty: do not")
	f.BoolVar(&o.standIn, "standin", false, "measure nbdkit file in the place of ovs: a check of the bench itself")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.time, o.long = time.Duration(*seconds*float64(time.Second)), time.Minute
	if o.quick {
		o.rounds, o.time, o.long = 1, time.Second, 5*time.Second
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if o.rounds < 1 || o.time < time.Second {
		return o, fmt.Errorf("at least one round of one second is needed")
	}
	for _, tool := range []string{"fio", "nbdkit", "qemu-nbd"} {
		if _, err := exec.LookPath(tool); err != nil {
			return o, fmt.Errorf("%s is not installed", tool)
		}
	}
	return o, nil
}

func run(ctx context.Context, o options) error {
	for file, value := range map[string]string{haltPollFile: o.haltPoll, fuseRingFile: o.fuseRing} {
		restore, err := setParameter(file, value)
		if err != nil {
			return err
		}
		defer restore()
	}
	dir, err := os.MkdirTemp(o.dir, "ovs-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	res := newResult(o)
	res.printHead(os.Stdout)
	before, err := cpu.Machine()
	if err != nil {
		return err
	}
	ring := newRing(dir, o)
	defer ring.close()
	for _, c := range cases() {
		if !o.only.MatchString(c.name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := c.run(ctx, ring, c)
		if err != nil {
			// One case that cannot run does not take the others with it.
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", c.name, err)
			rows = []row{{Case: c.name, Note: "did not run: " + firstLine(err)}}
		}
		for _, r := range rows {
			res.add(os.Stdout, r)
		}
	}
	after, err := cpu.Machine()
	if err != nil {
		return err
	}
	res.Steal = stolen(before, after)
	res.printFoot(os.Stdout)
	return res.write(o.json)
}
