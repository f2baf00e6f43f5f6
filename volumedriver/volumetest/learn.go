package volumetest

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"openvstorage/volumedriver"
)

// learn takes from the host what became of operations of unknown outcome on a vDisk, and
// demands that what the host has shown once stays so.
func (p *pool) learn(d *poolDisk) {
	list, err := p.host.List(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, i := range list {
		if p.gone[i.ID] && i.State != volumedriver.StateDeleting {
			p.t.Fatalf("vDisk %s was deleted and is there: %+v", i.Name, i)
		}
	}
	if p.gone[d.id] {
		return
	}
	at := slices.IndexFunc(list, func(i volumedriver.Info) bool { return i.ID == d.id })
	switch {
	case at < 0 || list[at].State == volumedriver.StateDeleting:
		if !d.maybe {
			p.t.Fatalf("vDisk %v is gone", d.names)
		}
		p.forget(d)
		return
	case list[at].State == volumedriver.StateUnsure:
		if !d.maybe && len(d.names) == 1 && !strings.Contains(list[at].Reason, "could not be opened yet") {
			p.t.Fatalf("vDisk %v is in doubt, and nothing is: %+v", d.names, list[at])
		}
		return
	case list[at].State == volumedriver.StateHalted:
		p.t.Fatalf("vDisk %v: %s", d.names, list[at].Reason)
	}
	d.maybe = false
	if !slices.Contains(d.names, list[at].Name) {
		p.t.Fatalf("vDisk %v is named %q", d.names, list[at].Name)
	}
	d.names = []string{list[at].Name}
	p.learnSnapshots(d, list[at].Snapshots)
}

func (p *pool) learnSnapshots(d *poolDisk, list []volumedriver.SnapshotInfo) {
	for snap := range d.hist.after(len(d.hist.ops)).snaps {
		at := slices.IndexFunc(list, func(s volumedriver.SnapshotInfo) bool { return s.Name == snap })
		switch {
		case at >= 0 && d.hist.deleted[snap]:
			p.t.Fatalf("snapshot %s of vDisk %v was deleted and is there", snap, d.names)
		case at >= 0 && list[at].Unsure:
			if !d.doubt[snap] {
				p.t.Fatalf("snapshot %s of vDisk %v is in doubt, and nothing is", snap, d.names)
			}
		case at >= 0:
			delete(d.doubt, snap)
		case d.doubt[snap]:
			delete(d.doubt, snap)
			d.hist.deleted[snap] = true
		case !d.hist.deleted[snap]:
			p.t.Fatalf("snapshot %s of vDisk %v is gone", snap, d.names)
		}
	}
}

// know makes the host find out all outcomes, while everything is answered.
func (p *pool) know() {
	ctx := context.Background()
	for _, d := range slices.Clone(p.disks) {
		for _, name := range d.names {
			_ = p.host.Sync(ctx, name, nil)
			_ = p.host.Checkpoint(ctx, name)
		}
		p.learn(d)
		if !p.gone[d.id] && (d.maybe || len(d.names) > 1 || len(d.doubt) > 0) {
			p.t.Fatalf("vDisk %v: still in doubt when everything is answered: %+v", d.names, d)
		}
	}
}

// opened compares the model with what a start has found: no outcome is unknown then.
func (p *pool) opened(cut bool) {
	list, err := p.host.List(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, i := range list {
		if i.State != volumedriver.StateRunning || i.Reason != "" {
			p.t.Fatalf("vDisk %s after a start: %s", i.Name, i.Reason)
		}
		if !slices.ContainsFunc(p.disks, func(d *poolDisk) bool { return d.id == i.ID }) {
			p.t.Fatalf("vDisk %s is there, and nobody knows it", i.Name)
		}
	}
	for _, d := range slices.Clone(p.disks) {
		i, err := p.info(d)
		if err != nil && d.maybe {
			p.forget(d)
			continue
		}
		if err != nil || i.ID != d.id {
			p.t.Fatalf("vDisk %v after a start: %v, %+v", d.names, err, i)
		}
		d.maybe, d.names = false, []string{i.Name}
		p.matches(d, i, cut)
	}
}

// info returns the host's Info of a vDisk, by whichever of its possible names it has.
func (p *pool) info(d *poolDisk) (i volumedriver.Info, err error) {
	for _, name := range d.names {
		if i, err = p.host.Info(context.Background(), name); err == nil {
			break
		}
	}
	return i, err
}

// matches demands that a vDisk holds all that was acknowledged, or after a power cut a
// prefix of it with all that was flushed. The model goes on from there.
func (p *pool) matches(d *poolDisk, i volumedriver.Info, cut bool) {
	least := len(d.hist.ops)
	if cut {
		least = d.hist.flushed
	}
	got := readAll(p.t, opened(p.t, p.host, i.Name))
	var there []string
	for _, s := range i.Snapshots {
		if !strings.HasPrefix(s.Name, "clone-") {
			there = append(there, s.Name)
		}
	}
	for n := least; n <= len(d.hist.ops); n++ {
		s := d.hist.after(n)
		if !bytes.Equal(got, s.data) || !d.may(s, there) {
			continue
		}
		for _, snap := range there {
			if b := readAll(p.t, opened(p.t, p.host, i.Name+"@"+snap)); !bytes.Equal(b, s.snaps[snap]) {
				p.t.Fatalf("snapshot %s@%s differs at %d", i.Name, snap, diff(b, s.snaps[snap]))
			}
		}
		d.hist = d.hist.until(n)
		d.hist.flushed = n
		p.learnSnapshots(d, i.Snapshots)
		return
	}
	s := d.hist.after(len(d.hist.ops))
	p.t.Fatalf("vDisk %s is no prefix of %d operations with at least %d (cut: %v): differs from the whole at %d; snapshots %v, in the model %d, deleted %v, in doubt %v",
		i.Name, len(d.hist.ops), least, cut, diff(got, s.data), there, len(s.snaps), d.hist.deleted, d.doubt)
}

// may reports whether the snapshots that are there can be those of a state.
func (d *poolDisk) may(s *modelState, there []string) bool {
	for _, snap := range there {
		if s.snaps[snap] == nil || d.hist.deleted[snap] {
			return false
		}
	}
	for snap := range s.snaps {
		if !slices.Contains(there, snap) && !d.hist.deleted[snap] && !d.doubt[snap] {
			return false
		}
	}
	return true
}
