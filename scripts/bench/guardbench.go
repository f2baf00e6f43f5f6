package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"openvstorage/scripts/bench/guard"
)

// pairMax bounds a pair, and renewing the servers: a build that hangs must not
// hold the machine.
const pairMax = 90 * time.Second

// guardBench is the guard's Bench: two builds on this machine.
type guardBench struct {
	options   options
	base, new *buildSide
	loads     map[*guard.Job]wantedLoad
	haltPoll  *haltPoll
	others    float64 // the share of the CPUs that others may use during a run

	renewed int
}

// doors are those that the loads go to.
func (b *guardBench) doors() map[door]bool {
	all := map[door]bool{}
	for _, l := range b.loads {
		all[l.door] = true
	}
	return all
}

// Renew starts servers of both builds on new directories. The build that is first alternates, as it
// does with the pairs: files that are written first may have the better place on the disk.
func (b *guardBench) Renew(ctx context.Context) error {
	b.close()
	b.renewed++
	return b.bounded(ctx, func() error {
		for _, s := range b.order(b.renewed%2 == 0) {
			if err := s.start(b.doors()); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		for _, c := range append(b.base.all(), b.new.all()...) {
			if err := c.calm(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pair runs a load on both builds, each while both are at rest.
func (b *guardBench) Pair(ctx context.Context, j *guard.Job, newFirst bool) ([]guard.Pair, error) {
	if err := b.haltPoll.set(j.Setting); err != nil {
		return nil, err
	}
	load := b.loads[j]
	got, most := map[*buildSide][]float64{}, 0.0
	err := b.bounded(ctx, func() error {
		for _, s := range b.order(newFirst) {
			figures, others, err := b.run(ctx, s, load.guardLoad)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if got[s], most = figures, max(most, others); others > b.others {
				return guard.ErrDisturbed
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pairs := make([]guard.Pair, len(load.figure))
	for i, f := range load.figure {
		pairs[i] = guard.Pair{Base: got[b.base][f], New: got[b.new][f], Others: math.Round(1000*most) / 1000}
	}
	return pairs, nil
}

// run runs a load on one build, and says which share of the CPUs something else
// used meanwhile.
func (b *guardBench) run(ctx context.Context, s *buildSide, l guardLoad) (figures []float64, others float64, err error) {
	if err := s.prepare(l); err != nil {
		return nil, 0, err
	}
	servers := append(b.base.all(), b.new.all()...)
	before, err := spending(servers)
	if err != nil {
		return nil, 0, err
	}
	if figures, err = s.run(ctx, b.options, l); err != nil {
		return nil, 0, err
	}
	after, err := spending(servers)
	if err != nil {
		return nil, 0, err
	}
	return figures, after.others(before), s.at[l.door].rest()
}

func (b *guardBench) order(newFirst bool) []*buildSide {
	if newFirst {
		return []*buildSide{b.new, b.base}
	}
	return []*buildSide{b.base, b.new}
}

// bounded does something with the servers. They are killed if it takes too long
// or is given up, which ends whatever waits for them.
func (b *guardBench) bounded(ctx context.Context, do func() error) error {
	limited, cancel := context.WithTimeout(ctx, pairMax)
	defer cancel()
	killed := make(chan struct{})
	stop := context.AfterFunc(limited, func() {
		defer close(killed)
		b.base.kill()
		b.new.kill()
	})
	err := do()
	if !stop() {
		<-killed // the next servers are not meant
	}
	if limited.Err() != nil && ctx.Err() == nil {
		err = errors.Join(fmt.Errorf("given up after %v", pairMax), err)
	}
	return err
}

func (b *guardBench) close() {
	b.base.stop()
	b.new.stop()
}
