package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"openvstorage/scripts/bench/guard"
	"openvstorage/scripts/cpu"
)

// guardOptions is the command line of the guard.
type guardOptions struct {
	base     string
	only     *regexp.Regexp
	total    time.Duration
	run      time.Duration // of one run that is limited by time
	haltPoll []string      // the settings to measure under; none: as it is
	others   float64       // the share of the CPUs that others may use during a run
	dir      string
	json     string
}

// othersMax is a little over what the kernel's own threads use to write back what the
// measurement dirties: 0-3 %. A compiler beside the measurement makes pairs differ by
// half, and then no number of pairs is worth anything. Whether a pair counts does not
// depend on which build was faster.
const othersMax = 0.05

func parseGuard(args []string) (guardOptions, error) {
	var o guardOptions
	f := flag.NewFlagSet("bench guard", flag.ExitOnError)
	f.StringVar(&o.base, "base", "", "the `commit` to compare the present work tree with")
	only := f.String("figures", "", "measure only the figures whose name matches this regular `expression`")
	f.DurationVar(&o.total, "time", 12*time.Minute, "end after this `time`, builds and all")
	f.DurationVar(&o.run, "run", time.Second/2, "`time` of a run; more pairs are worth more than longer ones")
	settings := f.String("haltpoll", "0,200000", "settings of guest_halt_poll_ns to measure under, where root may set it; it is put back at the end; empty: as it is")
	f.Float64Var(&o.others, "others", othersMax, "a pair does not count if something else uses more than this `share` of the CPUs during one of its runs")
	f.StringVar(&o.dir, "dir", "", "work in a new directory below this one, on the disk to be measured (default: the temporary directory)")
	f.StringVar(&o.json, "json", "guard.json", "write all pairs to this `file` too; empty: do not")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *settings != "" {
		o.haltPoll = strings.Split(*settings, ",")
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-figures: %w", err)
	}
	switch {
	case o.base == "":
		return o, errors.New("-base says which commit to compare with")
	case f.NArg() > 0:
		return o, fmt.Errorf("%q is no flag", f.Arg(0))
	case o.run < time.Second/10 || o.total < 10*o.run:
		return o, errors.New("a run takes a tenth of a second at least, and all of it ten runs")
	}
	for _, tool := range []string{"fio", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			return o, fmt.Errorf("%s is not installed", tool)
		}
	}
	return o, nil
}

// guardMain is `bench guard`, and returns its exit status.
func guardMain(ctx context.Context, args []string) int {
	o, err := parseGuard(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench guard:", err)
		return 2
	}
	outcome, err := runGuard(ctx, os.Stdout, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench guard:", err)
	}
	return guardStatus(outcome, err)
}

// guardStatus is the exit status: 0 for what passed and nothing else, 1 for what
// is worse or could not be measured, 3 for what is undecided.
func guardStatus(outcome guard.Outcome, err error) int {
	switch {
	case err != nil || outcome == guard.Worsened:
		return 1
	case outcome == guard.Passed:
		return 0
	}
	return 3
}

// closing is the time that is kept for ending the servers and removing their
// data.
const closing = 10 * time.Second

// runGuard compares the builds.
func runGuard(ctx context.Context, out io.Writer, o guardOptions) (guard.Outcome, error) {
	start := time.Now()
	dir, err := os.MkdirTemp(o.dir, "ovs-guard-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	res := guardResult{When: start.UTC().Truncate(time.Second), FUSERing: parameter(fuseRingFile)}
	if err := res.build(ctx, o.base, dir); err != nil {
		return "", err
	}
	runs := options{time: o.run}
	b := &guardBench{options: runs, base: newSide("base", res.Base.bin, dir, runs), new: newSide("new", res.New.bin, dir, runs), others: o.others}
	defer b.close()
	poll, settings, why, restore, err := newHaltPoll(haltPollFile, parameter(governorFile), o.haltPoll)
	if err != nil {
		return "", err
	}
	defer restore() // first of all: it must not wait for a server that does not end
	b.haltPoll = poll
	loads, without := possible(guardLoads())
	jobs, of := guardJobs(loads, o.only, settings)
	if b.loads = of; len(jobs) == 0 {
		return "", fmt.Errorf("no figure matches %q", o.only)
	}
	res.Busy = idleBusy()
	fmt.Fprintf(out, "built in %v; guest_halt_poll_ns %s", time.Since(start).Round(time.Second), strings.Join(settings, " and "))
	if why != "" {
		fmt.Fprintf(out, " (%s)", why)
	}
	res.printHead(out, without, o.others)

	before, err := cpu.Machine()
	if err != nil {
		return "", err
	}
	plan := &guard.Plan{Deadline: start.Add(o.total - closing), Now: time.Now, Say: func(format string, args ...any) {
		fmt.Fprintf(out, format+"\n", args...)
	}}
	err = plan.Run(ctx, b, jobs)
	after, unread := cpu.Machine()
	if unread == nil {
		res.Steal = stolen(before, after)
	}
	res.Seconds, res.Disturbed, res.Measured = time.Since(start).Seconds(), plan.Disturbed, plan.Measured
	err = errors.Join(err, unread, res.finish(out, o.json, jobs))
	return res.Outcome, err
}

// possible is the loads that this user can run here, and which cannot be and
// why.
func possible(loads []guardLoad) (some []guardLoad, without string) {
	if os.Geteuid() == 0 {
		_, err := os.Stat("/dev/fuse")
		if err == nil {
			return loads, ""
		}
		return slices.DeleteFunc(loads, func(l guardLoad) bool { return l.door == fuseDoor }), "the mount: there is no /dev/fuse"
	}
	return slices.DeleteFunc(loads, func(l guardLoad) bool { return l.door == fuseDoor || l.cold }), "the mount and cold reads: they need root"
}
