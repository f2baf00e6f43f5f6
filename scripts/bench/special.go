package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"openvstorage/internal/control"
	"openvstorage/scripts/fio"
)

// serverCPU measures what the server itself spends on a write: user and system time
// over requests. One figure is for writing alone, with a run so short that pacing holds
// the upload back. The other lasts to the end of the upload.
func serverCPU(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	runner, err := r.get(ours)
	if err != nil {
		return nil, err
	}
	front := row{Case: c.name + ", in front", Unit: c.unit, Most: 8, Ours: figures{Name: ours},
		Note: "100k writes, below the fill at which uploads start"}
	whole := row{Case: c.name + ", with the upload", Unit: c.unit, Ours: figures{Name: ours}, Note: "reported"}
	memory, err := r.get(nbdkitMemory)
	if err != nil {
		return nil, err
	}
	peer := figures{Name: nbdkitMemory}
	for range r.options.rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		inFront, all, err := cpuOfWrites(runner)
		if err != nil {
			return nil, err
		}
		front.Ours.add(inFront)
		whole.Ours.add(all)
		if inFront, _, err = cpuOfWrites(memory); err != nil {
			return nil, err
		}
		peer.add(inFront)
	}
	beside := row{Case: c.name + ", beside a server that only copies", Unit: c.unit, Ours: front.Ours, Peer: &peer, Note: "reported"}
	return []row{front, whole, beside}, nil
}

// cpuOfWrites is the CPU time of a write, in microseconds: until the last was
// answered, and until the server has come to rest.
func cpuOfWrites(runner *contender) (front, whole one, err error) {
	if err := runner.rest(); err != nil {
		return front, whole, err
	}
	before, err := runner.proc.CPU()
	if err != nil {
		return front, whole, err
	}
	got, err := runner.fio("--rw=randwrite", "--bs=4k", "--iodepth=32", fmt.Sprint("--size=", int64(workingSet)))
	if err != nil {
		return front, whole, err
	}
	after, err := runner.proc.CPU()
	if err != nil {
		return front, whole, err
	}
	if err := runner.rest(); err != nil {
		return front, whole, err
	}
	end, err := runner.proc.CPU()
	if err != nil {
		return front, whole, err
	}
	perWrite := func(d time.Duration) one {
		return one{figure: float64(d) / float64(time.Microsecond) / float64(got.Requests)}
	}
	return perWrite(after - before), perWrite(end - before), nil
}

// Of the sustained run.
const (
	sustainedBuffer = "256MiB"
	sustainedSize   = 2 * gib
	gapMax          = 500 * time.Millisecond
	gapResolution   = 20 // ms
)

// sustained writes through a small buffer for a minute and looks for the longest time
// without a completion. Beside it a control makes a hundred direct random writes a
// second on the same raw disk. So a disk that stands still for everybody can be told
// from a server that stands still. The peer runs before ovs and after.
func sustained(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	memory, err := r.get(nbdkitMemory)
	if err != nil {
		return nil, err
	}
	var causes []row // of the last round
	peer, gaps, control := figures{Name: nbdkitMemory}, figures{Name: ours}, figures{Name: rawDisk}
	whole := row{Case: c.name, Unit: c.unit, Least: 0.25, Ours: figures{Name: ours},
		Note: fmt.Sprintf("%v runs, the peer's are %v", r.options.long, r.options.time)}
	for range r.options.rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := sustainedPeer(memory, r, &peer); err != nil {
			return nil, err
		}
		got, gap, still, w, err := sustainedOurs(ctx, r)
		if err != nil {
			return nil, err
		}
		causes = w.rows()
		whole.Ours.add(got)
		gaps.add(one{figure: float64(gap / time.Millisecond)})
		control.add(one{figure: float64(still / time.Millisecond)})
	}
	if err := sustainedPeer(memory, r, &peer); err != nil {
		return nil, err
	}
	whole.Peer = &peer

	// The worst round counts, not the median, and a gap is excused only by
	// one of the control's.
	passed := true
	for i, gap := range gaps.Runs {
		limit := float64(gapMax / time.Millisecond)
		passed = passed && (gap < limit || control.Runs[i] >= limit)
	}
	longest := row{Case: "  its longest gap, beside a raw disk's", Unit: "ms", Ours: gaps, Peer: &control, Passed: &passed,
		Note: fmt.Sprintf("every round below %v, or the control has one too; resolution %d ms", gapMax, gapResolution)}
	return append([]row{whole, longest}, causes...), nil
}

func sustainedPeer(memory *contender, r *ring, peer *figures) error {
	if err := memory.rest(); err != nil {
		return err
	}
	got, err := memory.fio("--rw=randwrite", "--bs=4k", "--iodepth=32", fmt.Sprint("--size=", int64(workingSet)),
		"--time_based", lasting(r.options.time))
	peer.add(iops(got))
	return err
}

// sustainedOurs is one run of ours on a new directory, with the control
// beside it. It returns the figure, the two longest gaps and what was written.
func sustainedOurs(ctx context.Context, r *ring) (figure one, gap, control time.Duration, w written, err error) {
	metrics, err := freeAddress()
	if err != nil {
		return one{}, 0, 0, nil, err
	}
	runner, err := r.sustainedRunner(metrics)
	if err != nil {
		return one{}, 0, 0, nil, err
	}
	defer func() {
		runner.proc.Kill()
		if runner.ovs != nil {
			os.RemoveAll(runner.ovs.Data)
		}
	}()
	raw, err := r.get(rawDisk)
	if err != nil {
		return one{}, 0, 0, nil, err
	}
	if err := runner.rest(); err != nil {
		return one{}, 0, 0, nil, err
	}
	seconds := lasting(r.options.long)
	type outcome struct {
		gap time.Duration
		err error
	}
	beside := make(chan outcome, 1)
	go func() {
		gap, _, err := gapOf(r.dir, "control", func(logging []string) (fio.Result, error) {
			return raw.fio(append(logging, "--rw=randwrite", "--bs=4k", "--iodepth=1", "--rate_iops=100",
				fmt.Sprint("--size=", int64(workingSet)), "--time_based", seconds)...)
		})
		beside <- outcome{gap, err}
	}()
	gap, got, err := gapOf(r.dir, "ours", func(logging []string) (fio.Result, error) {
		return runner.fio(append(logging, "--rw=randwrite", "--bs=4k", "--iodepth=32", "--norandommap",
			fmt.Sprint("--size=", r.sustainedSize()), "--time_based", seconds)...)
	})
	other := <-beside
	if err == nil {
		err = other.err
	}
	if err == nil && runner.ovs != nil {
		if err = runner.rest(); err == nil {
			w, err = scrape(ctx, metrics)
		}
	}
	return iops(got), gap, other.gap, w, err
}

func (r *ring) sustainedSize() int64 {
	if r.options.standIn {
		return workingSet
	}
	return sustainedSize
}

func (r *ring) sustainedRunner(metrics string) (*contender, error) {
	if r.options.standIn {
		return r.serve(ours, workingSet, r.nbdkitFile("sustained"))
	}
	return r.startOvs(sustainedSize, "--write-buffer", sustainedBuffer, "--metrics", metrics)
}

// gapOf runs fio with a log of completions and returns their longest gap.
func gapOf(dir, name string, run func(logging []string) (fio.Result, error)) (time.Duration, fio.Result, error) {
	prefix := filepath.Join(dir, name)
	got, err := run([]string{"--write_iops_log=" + prefix, fmt.Sprint("--log_avg_msec=", gapResolution)})
	if err != nil {
		return 0, got, err
	}
	gap, err := fio.Gap(prefix + "_iops.1.log")
	return gap, got, err
}

// management times snapshot, clone and rollback on a vDisk of 1 TiB with 4 GiB in it.
// It times the whole command, from the start of the ovs process to its end, so the
// figure is an upper bound.
func management(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	if r.options.standIn {
		return []row{{Case: c.name, Note: "the stand-in has no management"}}, nil
	}
	r.stop(ours) // the machine is for one at a time
	runner, err := r.startOvs(0)
	if err != nil {
		return nil, err
	}
	defer runner.proc.Kill()
	if _, err := runner.ovs.Run("vdisk", "create", disk, "--size", fmt.Sprint(int64(tib))); err != nil {
		return nil, err
	}
	if _, err := runner.fio("--rw=randwrite", "--bs=1m", "--iodepth=4", "--norandommap", fmt.Sprint("--size=", int64(tib)),
		fmt.Sprint("--io_size=", r.managementFill()), "--end_fsync=1"); err != nil {
		return nil, err
	}
	if err := runner.rest(); err != nil {
		return nil, err
	}
	client := control.NewClient(runner.ovs.Data)
	names := []string{"snapshot", "clone", "rollback"}
	all := make([]figures, len(names))
	for round := range max(5, r.options.rounds) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		snap := fmt.Sprint("snap", round)
		for i, call := range []func() error{
			func() error { _, err := client.SnapshotCreate(ctx, disk, snap); return err },
			func() error { _, err := client.Clone(ctx, disk, snap, fmt.Sprint("clone", round), nil); return err },
			func() error { return client.Rollback(ctx, disk, snap) },
		} {
			start := time.Now()
			if err := call(); err != nil {
				return nil, err
			}
			all[i].add(one{figure: float64(time.Since(start)) / float64(time.Millisecond)})
		}
	}
	var rows []row
	for i, name := range names {
		all[i].Name = ours
		rows = append(rows, row{Case: name + ", 1 TiB with 4 GiB", Unit: c.unit, Ours: all[i], Most: 20, Note: "the call over the management socket"})
	}
	return rows, nil
}

func (r *ring) managementFill() int64 {
	if r.options.quick {
		return 256 * mib
	}
	return 4 * gib
}

// idleMemory is the resident set of a server with ten large empty vDisks.
func idleMemory(_ context.Context, r *ring, c benchCase) ([]row, error) {
	if r.options.standIn {
		return []row{{Case: c.name, Note: "the stand-in has no management"}}, nil
	}
	runner, err := r.startOvs(0)
	if err != nil {
		return nil, err
	}
	defer runner.proc.Kill()
	for i := range 10 {
		if _, err := runner.ovs.Run("vdisk", "create", fmt.Sprint(disk, i), "--size", fmt.Sprint(int64(tib))); err != nil {
			return nil, err
		}
	}
	rss, err := runner.proc.RSS()
	if err != nil {
		return nil, err
	}
	f := figures{Name: ours}
	f.add(one{figure: float64(rss) / mib})
	return []row{{Case: c.name, Unit: c.unit, Ours: f, Most: 300, Note: "resident set"}}, nil
}
