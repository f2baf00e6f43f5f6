package memtest

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"openvstorage/fusefs/filetree"
)

// Rename implements fusefs.Pool.
func (p *Pool) Rename(_ context.Context, old, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.get(old)
	if err != nil {
		return err
	}
	if p.disks[name] != nil {
		return fs.ErrExist
	}
	delete(p.disks, old)
	p.disks[name] = d
	p.listed.Add(1)
	return nil
}

// RenameBelow implements fusefs.Pool.
func (p *Pool) RenameBelow(ctx context.Context, from, to string, swaps []filetree.Swap) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := map[string]string{}
	for name := range p.disks {
		rest, ok := strings.CutPrefix(name, from+"/")
		if !ok {
			continue
		}
		if names[name] = to + "/" + rest; p.disks[names[name]] != nil {
			return fmt.Errorf("%w: vDisk %s: %w", filetree.ErrNotWritten, names[name], fs.ErrExist)
		}
	}
	changes := make([]filetree.Change, len(swaps))
	for i, s := range swaps {
		changes[i] = filetree.Change{Key: s.Key, Value: s.New}
	}
	if err := p.keys.Write(ctx, changes); err != nil {
		return err
	}
	for old, name := range names {
		p.disks[name] = p.disks[old]
		delete(p.disks, old)
	}
	p.listed.Add(1)
	return nil
}

// HoldSettling has SettleBelow wait until over is called. waiting counts those that do.
func (p *Pool) HoldSettling() (over func(), waiting func() int) {
	s := &stall{over: make(chan struct{})}
	p.settling.Store(s)
	return func() { p.settling.Store(nil); close(s.over) }, func() int { return int(s.waiting.Load()) }
}

// SettleBelow implements fusefs.Pool.
func (p *Pool) SettleBelow(ctx context.Context, _ ...string) error {
	s := p.settling.Load()
	if s == nil {
		return nil
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-s.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
