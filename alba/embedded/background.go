package embedded

import (
	"context"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/arakoon/groups"
)

// trimAfter is how long no object is put before the memory of idle uploads is given
// back.
const trimAfter = 10 * time.Second

// start starts what is done in the background.
func (b *Backend) start() {
	var background context.Context
	background, b.stop = context.WithCancel(context.Background())
	b.work.Start()
	b.done.Go(func() { b.fleet.Watch(background, b.changed) })
	b.done.Go(func() { b.tend(background) })
	b.done.Go(func() { b.beats(background) })
}

// moved is how many bytes of fragments clients have written and read so far.
func (b *Backend) moved() uint64 {
	s := b.Client.Stats()
	return s.Data + s.Parity + s.ReadBytes
}

// changed tells of a disk whose condition has changed.
func (b *Backend) changed(d *fleet.Disk, before, after fleet.Condition) {
	dir := b.asds.where(d.Node, d.Place)
	if after.State == fleet.Well {
		b.opt.Logger.Info("a disk is well again", "disk", d.Number, "dir", dir, "was", before.State.String(), "for", time.Since(before.Since).Round(time.Second))
	} else {
		b.opt.Logger.Warn("a disk is "+after.State.String(), "disk", d.Number, "dir", dir, "reason", after.Reason, "since", after.Since)
	}
	b.wake()
}

// tend does until ctx ends what disks and managers need now and then: it follows what
// the ABM decided without an answer, opens missing disks that are back, and gives back
// the memory of idle uploads.
func (b *Backend) tend(ctx context.Context) {
	tick := time.NewTicker(b.opt.ReopenEvery)
	defer tick.Stop()
	var idle time.Time
	var puts uint64
	tried := make(map[uint64]time.Time)
	others := elsewhere{of: b}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := b.decisions.settleLate(ctx); err != nil && ctx.Err() == nil {
			b.opt.Logger.Warn("what the ABM has decided is not known yet", "err", err)
		}
		others.follow(ctx)
		b.asds.reopenAll(ctx, tried)
		if n := b.Client.Stats().Plain; n != puts || idle.IsZero() {
			puts, idle = n, time.Now()
		} else if time.Since(idle) > trimAfter {
			b.Client.Trim()
			idle = time.Now()
		}
	}
}

// ReopenDisks opens disks that were missing and are back, and opens disks again that
// take no writes, as is done all the time in the background. It tries at once what has
// failed lately.
func (b *Backend) ReopenDisks(ctx context.Context) {
	for _, d := range b.fleet.All() {
		d.TryAgain()
	}
	b.asds.reopenAll(ctx, make(map[uint64]time.Time))
}

// Beat claims a generation if something has changed since the newest was claimed. It
// claims first in the data directory and its groups, then on the disks. It is called in
// the background, and when the backend is closed.
func (b *Backend) Beat(ctx context.Context) error {
	m, _, err := b.groups.Beat(ctx)
	if err != nil {
		return err
	}
	return b.asds.raise(ctx, m)
}

// beats calls Beat until ctx ends.
func (b *Backend) beats(ctx context.Context) {
	tick := time.NewTicker(groups.BeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		beat, cancel := context.WithTimeout(ctx, groups.BeatMax)
		err := b.Beat(beat)
		cancel()
		if err != nil && ctx.Err() == nil {
			b.opt.Logger.Warn("a generation was not claimed everywhere, to be tried again", "err", err)
		}
	}
}
