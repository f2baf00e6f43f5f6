package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"openvstorage/scripts/fio"
)

// one is the figure of one run.
type one struct {
	figure   float64 // in the case's unit
	p50, p99 time.Duration
	detail   string
}

func iops(r fio.Result) one { return one{figure: r.IOPS / 1000, p50: r.P50, p99: r.P99} }
func bandwidth(r fio.Result) one {
	return one{figure: r.Bytes / mib, p50: r.P50, p99: r.P99}
}

// bar is what is asked for beside one peer.
type bar struct {
	peer  string
	least float64 // ours/peer
}

// benchCase is one line of the bars.
type benchCase struct {
	name string
	unit string
	us   string // ours, or the other door of it
	bars []bar
	load func(ctx context.Context, o options, c *contender) (one, error) // of a race
	cold bool                                                            // of a race: drop the page cache before each run
	run  func(ctx context.Context, r *ring, c benchCase) ([]row, error)
}

// cases is the Speed bar, in the order in which it is printed.
func cases() []benchCase {
	return []benchCase{
		{
			name: "random write 4k QD32", unit: "kIOPS", run: race,
			bars: []bar{{nbdkitMemory, 0.8}, {qemuWriteback, 3}},
			load: timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=32"),
		},
		{
			name: "random read 4k QD32 verified", unit: "kIOPS", run: race,
			bars: []bar{{nbdkitMemory, 1.2}},
			load: verifiedReads,
		},
		{
			name: "random read 4k QD32 cold", unit: "kIOPS", run: race, cold: true,
			bars: []bar{{rawDisk, 0.8}},
			// One pass over the data: a second would find it in memory.
			load: sized(iops, "--rw=randread", "--bs=4k", "--iodepth=32"),
		},
		{
			name: "write+flush 4k QD1", unit: "kIOPS", run: race,
			bars: []bar{{nbdkitFile, 1.2}},
			load: timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"),
		},
		{
			name: "random write 4k FUA, 32 in flight", unit: "kIOPS", run: race,
			bars: []bar{{qemuWritethrough, 5}},
			load: fuaWrites,
		},
		{
			name: "sequential write 1m QD8", unit: "MiB/s", run: race,
			bars: []bar{{nbdkitFile, 0.9}},
			load: timed(bandwidth, "--rw=write", "--bs=1m", "--iodepth=8"),
		},
		{
			name: "sequential read 1m QD8", unit: "MiB/s", run: race,
			bars: []bar{{nbdkitFile, 0.9}},
			load: timed(bandwidth, "--rw=read", "--bs=1m", "--iodepth=8"),
		},
		{
			name: "FUSE random write 4k QD32", unit: "kIOPS", run: race, us: oursFUSE,
			bars: []bar{{qemuFUSE, 1.5}, {qemuFUSECached, 0}, {ours, 0.5}},
			load: timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=32"),
		},
		{
			name: "FUSE random read 4k QD32", unit: "kIOPS", run: race, us: oursFUSE,
			bars: []bar{{qemuFUSE, 1.2}, {qemuFUSECached, 0}, {ours, 0.35}},
			load: timed(iops, "--rw=randread", "--bs=4k", "--iodepth=32"),
		},
		{
			name: "FUSE random write 4k QD1", unit: "kIOPS", run: race, us: oursFUSE,
			bars: []bar{{qemuFUSE, 1}, {ours, 0}},
			load: timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=1"),
		},
		{
			name: "FUSE random read 4k QD1", unit: "kIOPS", run: race, us: oursFUSE,
			bars: []bar{{qemuFUSE, 1}, {ours, 0}},
			load: timed(iops, "--rw=randread", "--bs=4k", "--iodepth=1"),
		},
		{
			name: "FUSE sequential write 1m QD8", unit: "MiB/s", run: race, us: oursFUSE,
			bars: []bar{{qemuFUSE, 0.8}, {qemuFUSECached, 0}},
			load: timed(bandwidth, "--rw=write", "--bs=1m", "--iodepth=8"),
		},
		{
			name: "FUSE sequential read 1m QD8", unit: "MiB/s", run: race, us: oursFUSE,
			bars: []bar{{qemuFUSE, 0.8}, {qemuFUSECached, 0}},
			load: timed(bandwidth, "--rw=read", "--bs=1m", "--iodepth=8"),
		},
		{name: "server CPU a 4k write", unit: "us", run: serverCPU},
		{name: "sustained random write 4k, 256 MiB buffer", unit: "kIOPS", run: sustained},
		{name: "ALBA upload of 16 MiB objects, 4+2", unit: "MiB/s", run: albaUpload},
		{name: "ALBA reads from the fragment cache", unit: "MiB/s", run: albaCache},
		{name: "ALBA random read 4k QD32 cold", unit: "kIOPS", run: albaCold},
		{name: "ALBA manifest commits, 64 clients", unit: "k/s", run: albaCommits},
		{name: "ALBA CPU of an uploaded 4k", unit: "us", run: albaCPU},
		{name: "ALBA 100,000 objects, ten 1 TiB vDisks", unit: "MiB", run: fullMemory},
		{name: "snapshot, clone, rollback", unit: "ms", run: management},
		{name: "ten idle 1 TiB vDisks", unit: "MiB", run: idleMemory},
	}
}

// timed is a load for as long as the options say.
func timed(figure func(fio.Result) one, args ...string) func(context.Context, options, *contender) (one, error) {
	return func(_ context.Context, o options, c *contender) (one, error) {
		r, err := c.fio(append(args, fmt.Sprint("--size=", int64(workingSet)), "--time_based", lasting(o.time))...)
		return figure(r), err
	}
}

// lasting is the option of fio that says how long a run is.
func lasting(d time.Duration) string { return fmt.Sprintf("--runtime=%dms", d.Milliseconds()) }

// sized is a load that touches each block of the working set once.
func sized(figure func(fio.Result) one, args ...string) func(context.Context, options, *contender) (one, error) {
	return func(_ context.Context, _ options, c *contender) (one, error) {
		r, err := c.fio(append(args, fmt.Sprint("--size=", int64(workingSet)))...)
		return figure(r), err
	}
}

// verifiedReads reads back, checksum by checksum, what fill wrote; earlier
// cases have written over it, so it is filled again.
func verifiedReads(_ context.Context, o options, c *contender) (one, error) {
	if err := c.fill(workingSet); err != nil {
		return one{}, err
	}
	if err := c.rest(); err != nil {
		return one{}, err
	}
	// fio ends a verified read after one pass, whatever its time is.
	passes := max(1, int(2*o.time.Seconds()))
	r, err := c.fio("--rw=randread", "--bs=4k", "--iodepth=32", fmt.Sprint("--size=", int64(workingSet)),
		"--verify=crc32c", "--verify_fatal=1", fmt.Sprint("--loops=", passes))
	return iops(r), err
}

// race runs the load on ours and each peer in turn, round after round.
func race(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	names := []string{cmp.Or(c.us, ours)}
	for _, b := range c.bars {
		names = append(names, b.peer)
	}
	all := make([]figures, len(names))
	for i, name := range names {
		all[i].Name = name
		if _, err := r.get(name); err != nil {
			return nil, err
		}
	}
	for range r.options.rounds {
		for i, name := range names {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			runner, err := r.get(name)
			if err != nil {
				return nil, err
			}
			if err := prepare(c, runner); err != nil {
				return nil, err
			}
			got, err := c.load(ctx, r.options, runner)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all[i].add(got)
		}
	}
	var rows []row
	for i, b := range c.bars {
		rows = append(rows, row{Case: c.name, Unit: c.unit, Ours: all[0], Peer: &all[i+1], Least: b.least})
	}
	return rows, nil
}

func prepare(c benchCase, runner *contender) error {
	if err := runner.rest(); err != nil {
		return err
	}
	if c.cold {
		return dropCaches()
	}
	return nil
}

// add keeps a run; the latencies are those of the last.
func (f *figures) add(got one) {
	f.Runs = append(f.Runs, got.figure)
	f.P50us = float64(got.p50) / float64(time.Microsecond)
	f.P99us = float64(got.p99) / float64(time.Microsecond)
	f.Detail = got.detail
}
