package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"openvstorage/scripts/bench/guard"
)

// door is what of a build a load of the guard goes to.
type door int

const (
	nbdDoor   door = iota
	fuseDoor       // the same vDisk, as a file of the mount
	smallDoor      // a server with the smallest write buffer that there is
)

// smallBuffer fills within the first second of a load.
const smallBuffer = "64MiB"

// guardFigure is a figure of a load, in the order in which the load returns
// them.
type guardFigure struct {
	name, unit string
	cost       bool
}

// guardLoad is what the guard runs on both builds in turn. A run is short: what
// makes a figure certain is the number of pairs, not their length.
type guardLoad struct {
	figures []guardFigure
	door    door
	reads   bool
	cold    bool // drop the page cache before each run
	run     func(ctx context.Context, o options, c *contender) ([]float64, error)
}

// guardLoads are those of the bars whose figures are a ratio to a peer, and the
// CPU of requests. Reads come first, as each needs what was written in full.
func guardLoads() []guardLoad {
	one := func(name, unit string) []guardFigure { return []guardFigure{{name: name, unit: unit}} }
	return []guardLoad{
		{
			figures: one("sequential read 1m QD8", "MiB/s"), reads: true,
			run: figureOf(timed(bandwidth, "--rw=read", "--bs=1m", "--iodepth=8")),
		},
		{
			figures: []guardFigure{
				{name: "random read 4k QD32", unit: "kIOPS"},
				{name: "server CPU a 4k read", unit: "us", cost: true},
			},
			reads: true,
			run:   readsAndCPU,
		},
		{
			figures: one("random read 4k QD32 cold", "kIOPS"), reads: true, cold: true,
			run: figureOf(coldReads),
		},
		{
			figures: one("FUSE sequential read 1m QD8", "MiB/s"), door: fuseDoor, reads: true,
			run: figureOf(timed(bandwidth, "--rw=read", "--bs=1m", "--iodepth=8")),
		},
		{
			figures: one("FUSE random read 4k QD32", "kIOPS"), door: fuseDoor, reads: true,
			run: figureOf(timed(iops, "--rw=randread", "--bs=4k", "--iodepth=32")),
		},
		{
			figures: one("random write 4k QD32", "kIOPS"),
			run:     figureOf(timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=32")),
		},
		{
			figures: one("write+flush 4k QD1", "kIOPS"),
			run:     figureOf(timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1")),
		},
		{
			figures: one("random write 4k FUA, 32 in flight", "kIOPS"),
			run:     figureOf(fuaWrites),
		},
		{
			figures: one("sequential write 1m QD8", "MiB/s"),
			run:     figureOf(timed(bandwidth, "--rw=write", "--bs=1m", "--iodepth=8")),
		},
		{
			figures: []guardFigure{{name: "server CPU a 4k write, in front", unit: "us", cost: true}},
			run: func(_ context.Context, _ options, c *contender) ([]float64, error) {
				front, _, err := cpuOfWrites(c)
				return []float64{front.figure}, err
			},
		},
		{
			figures: one("sustained random write 4k, "+smallBuffer+" buffer", "kIOPS"), door: smallDoor,
			// The first half second fills the buffer.
			run: figureOf(timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=32", "--norandommap", "--ramp_time=500ms")),
		},
		{
			figures: one("FUSE sequential write 1m QD8", "MiB/s"), door: fuseDoor,
			run: figureOf(timed(bandwidth, "--rw=write", "--bs=1m", "--iodepth=8")),
		},
		{
			figures: one("FUSE random write 4k QD32", "kIOPS"), door: fuseDoor,
			run: figureOf(timed(iops, "--rw=randwrite", "--bs=4k", "--iodepth=32")),
		},
	}
}

// figureOf makes a load of the bench one of the guard.
func figureOf(load func(context.Context, options, *contender) (one, error)) func(context.Context, options, *contender) ([]float64, error) {
	return func(ctx context.Context, o options, c *contender) ([]float64, error) {
		got, err := load(ctx, o, c)
		return []float64{got.figure}, err
	}
}

// coldReads reads blocks that are not in memory, none of them twice.
func coldReads(_ context.Context, o options, c *contender) (one, error) {
	r, err := c.fio("--rw=randread", "--bs=4k", "--iodepth=32", fmt.Sprint("--size=", int64(workingSet)), lasting(o.time))
	return iops(r), err
}

// readsAndCPU reads at random what is in memory, and looks at what the server
// spends on it.
func readsAndCPU(_ context.Context, o options, c *contender) ([]float64, error) {
	before, err := c.proc.CPU()
	if err != nil {
		return nil, err
	}
	got, err := c.fio("--rw=randread", "--bs=4k", "--iodepth=32", fmt.Sprint("--size=", int64(workingSet)),
		"--time_based", lasting(o.time))
	if err != nil {
		return nil, err
	}
	after, err := c.proc.CPU()
	return []float64{got.IOPS / 1000, float64(after-before) / float64(time.Microsecond) / float64(max(1, got.Requests))}, err
}

// wantedLoad is the load of a job, and which of its figures are the job's.
type wantedLoad struct {
	guardLoad
	figure []int // by series of the job
}

// guardJobs are the loads with a figure that matches, under each setting.
func guardJobs(loads []guardLoad, only *regexp.Regexp, settings []string) (jobs []*guard.Job, of map[*guard.Job]wantedLoad) {
	of = map[*guard.Job]wantedLoad{}
	for _, setting := range settings {
		for _, l := range loads {
			j, w := &guard.Job{Name: l.figures[0].name, Setting: setting}, wantedLoad{guardLoad: l}
			for i, f := range l.figures {
				if only.MatchString(f.name) {
					w.figure = append(w.figure, i)
					j.Series = append(j.Series, &guard.Series{Figure: guard.Figure{Name: f.name, Unit: f.unit, Cost: f.cost, Setting: setting}})
				}
			}
			if len(w.figure) > 0 {
				jobs, of[j] = append(jobs, j), w
			}
		}
	}
	return jobs, of
}
