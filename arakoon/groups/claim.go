package groups

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/generation"
)

// generationKey, in every group, holds the newest generation of this data directory that it
// has seen.
func (g *Groups) generationKey() []byte { return g.ownKey(generationName) }

const generationName = "host/generation"

// BeatEvery is how often a generation should be claimed while something changes. A copy
// that is put back is recognized if a generation was claimed after it was made, so what
// was written in about this time may be lost unnoticed.
const BeatEvery = 10 * time.Second

// BeatMax is how long to wait for a claim: a group on a full disk waits for room.
const BeatMax = 30 * time.Second

// closePatience is how long Close waits for a last claim: a disk may be full.
const closePatience = 5 * time.Second

// check compares the generation of each group that was there with the record, and refuses
// the directory if one of them is an older copy.
func (g *Groups) check(ctx context.Context) error {
	for _, of := range g.members.all() {
		if err := g.checkOne(ctx, of.spec, of.store()); err != nil {
			return err
		}
	}
	return nil
}

// checkOne does that for a group. A claim may be made meanwhile: the group has at least what
// was settled before it was asked, and at most what was claimed after it has answered.
func (g *Groups) checkOne(ctx context.Context, s Spec, from Store) error {
	before := g.opt.Ledger.Record()
	file := path.Join(g.opt.Dir, datadir.FormatFile)
	values, err := from.MultiGet(ctx, arakoon.Consistent, g.generationKey())
	if err != nil {
		return fmt.Errorf("group %s: %w", s.Name, err)
	}
	var m generation.Mark
	if values[0] != nil {
		if m, err = generation.Decode(values[0]); err != nil {
			return fmt.Errorf("group %s: key %q: %w", s.Name, g.generationKey(), err)
		}
	}
	record := g.opt.Ledger.Record()
	switch verdict := record.History.Judge(record.Generation, m); {
	case verdict == generation.Newer:
		return fmt.Errorf("%w: %s is of generation %d, and %s of %d: restore that file, or all of the data directory but asd/ and cache/, from one copy that was made while nothing ran",
			ErrOlder, file, record.Generation, g.dir(s), m.Number)
	case verdict == generation.Foreign:
		return fmt.Errorf("%w: %s and %s both claimed generation %d, apart from each other: restore all of the data directory but asd/ and cache/ from one copy that was made while nothing ran",
			ErrForeign, file, g.dir(s), m.Number)
	case m.Number < before.Settled && before.Made(s.dirName()):
		return fmt.Errorf("%w: %s is of generation %d, and the data directory had settled %d: restore it as it was last, or all of the data directory but asd/ and cache/ from one copy that was made while nothing ran",
			ErrOlder, g.dir(s), m.Number, before.Settled)
	}
	return nil
}

// Claim claims a generation above floor and above all that the directory has seen. It is
// called once at each start, before anything changes that others could see. accept says
// that a person has accepted this copy, although others may be newer: what those have
// claimed counts for nothing from then on.
func (g *Groups) Claim(ctx context.Context, floor uint64, accept bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	record := g.opt.Ledger.Record()
	m := generation.Mark{Number: max(record.Generation, floor) + 1, Start: g.start}
	g.ask(true)
	history := record.History
	if accept {
		history = nil
	}
	history = history.Add(m)
	for told := false; ; told = true {
		err := g.claim(ctx, m, func(r *datadir.Record) {
			if r.History = history; accept {
				r.Suspended = time.Now().UTC()
			}
		})
		if !disk.CauseOf(err).Passes() || errors.Is(err, datadir.ErrInDoubt) {
			return err
		}
		if g.opt.OnFull != nil && disk.CauseOf(err) == disk.Full {
			g.opt.OnFull(err)
		}
		if !told { // a full disk makes a start wait, and does not fail it (P6)
			g.opt.Logger.Warn("the start waits until it can write its record", "err", err)
		}
		select {
		case <-time.After(claimAgain):
		case <-ctx.Done():
			return err
		}
	}
}

// claimAgain is how long a start waits before it tries again to claim, or to open a group,
// for which it lacked room or anything else.
const claimAgain = time.Second

// Beat claims the next generation if, since the newest was claimed, a group has changed or
// a witness has. It returns the newest generation, and whether this call has claimed it.
func (g *Groups) Beat(ctx context.Context) (m generation.Mark, changed bool, err error) {
	return g.beat(ctx, false)
}

// beat is Beat. last says that no other claim follows: then a change of a witness that
// otherwise follows claims is a reason too.
func (g *Groups) beat(ctx context.Context, last bool) (m generation.Mark, changed bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Mark().Number == 0 {
		return g.Mark(), false, nil // nothing was claimed yet
	}
	changed = g.ask(last)
	for _, m := range g.members.all() {
		changed = changed || m.changes() != m.claimed
	}
	if !changed {
		return g.Mark(), false, nil
	}
	err = g.claim(ctx, generation.Mark{Number: g.opt.Ledger.Record().Generation + 1, Start: g.start}, func(*datadir.Record) {})
	return g.Mark(), err == nil, err
}

// Start beats in the background until Close. It is for a caller that has nothing else to
// do after a claim, such as marking disks.
func (g *Groups) Start() {
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.beating.Go(func() {
		tick := time.NewTicker(BeatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			beat, cancel := context.WithTimeout(ctx, BeatMax)
			_, _, err := g.Beat(beat)
			cancel()
			if err != nil && ctx.Err() == nil {
				g.opt.Logger.Warn("a generation was not claimed everywhere, to be tried again", "err", err)
			}
		}
	})
}

// Mark is the newest generation that this start has claimed and settled. It waits
// for nothing.
func (g *Groups) Mark() generation.Mark {
	if m := g.mark.Load(); m != nil {
		return *m
	}
	return generation.Mark{}
}

// claim takes the steps of a claim, in the order that the package comment gives reasons
// for. g.mu is held.
func (g *Groups) claim(ctx context.Context, m generation.Mark, also func(*datadir.Record)) error {
	err := g.opt.Ledger.Change(func(r *datadir.Record) {
		r.Generation = m.Number
		also(r)
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	list, names := g.members.all(), encodeNames(g.dirNames())
	for _, of := range list {
		all.Go(func() {
			seq := new(arakoon.Sequence).Set(g.generationKey(), m.Append(nil)).Set(g.groupsKey(), names)
			for _, w := range g.witnesses {
				if w.Group == of.spec.Name && w.now != nil {
					seq.Set(witnessKey(w.Name), w.now)
				}
			}
			before := of.changes()
			var index uint64
			err := arakoon.Patiently(ctx, func() (err error) {
				index, _, err = of.store().Write(ctx, seq)
				return err
			})
			if of.note(before, index); err != nil {
				of.claimed = unclaimed
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("claim %v in group %s: %w", m, of.spec.Name, err))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, w := range g.witnesses {
		w.told = w.now
	}
	for _, of := range list {
		if n := of.node(); n != nil {
			n.MayCompact() // these are the newest files that there are
		}
	}
	if err := g.opt.Ledger.Change(func(r *datadir.Record) { r.Settled = m.Number }); err != nil {
		return err
	}
	g.mark.Store(&m)
	return nil
}

// Judge compares what something of this data directory has seen with what the
// directory has.
func (g *Groups) Judge(m generation.Mark) generation.Verdict {
	record := g.opt.Ledger.Record()
	return record.History.Judge(record.Generation, m)
}

// Generation is the newest that the data directory has claimed.
func (g *Groups) Generation() uint64 { return g.opt.Ledger.Record().Generation }

// Suspended is the time since which nothing may be deleted on disks; zero if deletion is
// allowed. A claim that accepts an older copy suspends deletion, durably: the disks may
// hold what only a newer copy knows of.
func (g *Groups) Suspended() time.Time { return g.opt.Ledger.Record().Suspended }

// Resume allows deletion again, durably.
func (g *Groups) Resume() error {
	return g.opt.Ledger.Change(func(r *datadir.Record) { r.Suspended = time.Time{} })
}
