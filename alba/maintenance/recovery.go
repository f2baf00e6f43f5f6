package maintenance

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/records"
)

// Objects that were written before there were recovery records have none, and the client
// writes that of an inline object behind its put, or dies before. The search for absent
// fragments finds both: it asks the disks for records too, and what lacks is written here.

// recordsMax bounds the objects that one pass gives records.
const recordsMax = 10_000

// lacking is the records that some objects of a namespace lack, by object.
type lacking map[string]map[slot]osd.Info // of the fragments beside which they lack; an inline object has none

// slot is a fragment of an object, and the disk that has it.
type slot struct {
	chunk, fragment int
	disk            uint64
}

// add notes that a fragment has no record.
func (l lacking) add(name string, s slot, fragment osd.Info) {
	if l[name] == nil {
		l[name] = make(map[slot]osd.Info)
	}
	l[name][s] = fragment
}

// inline notes those inline objects of a page whose version is on fewer disks than it could be.
// It asks each disk once.
func (s *absentSearch) inline(ctx context.Context, ns uint64, page []nsm.Object, l lacking) error {
	var keys [][]byte
	var objects []*nsm.Object
	for i := range page {
		if o := &page[i]; len(o.Chunks) == 0 {
			keys = append(keys, manifest.InlineKey(ns, o.Name).AppendRecovery(nil))
			objects = append(objects, o)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	copies := make([]int, len(keys))
	asked := 0
	var errs []error
	for _, d := range s.fleet.All() {
		if d.Missing() != nil {
			continue
		}
		infos, err := d.Stat(ctx, keys)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		asked++
		for i, info := range infos {
			if info.Found && info.Epoch >= objects[i].Version {
				copies[i]++
			}
		}
	}
	for i, o := range objects {
		if copies[i] < asked && copies[i] < s.enough(ctx, ns, o) {
			l[o.Name] = nil
		}
	}
	return errors.Join(errs...)
}

// enough is how many disks the record of an inline object belongs on: one more than its policy
// allows to be lost. A list does not tell the policy: the preset's tells it well enough to
// know whether to look closer, and whoever writes goes by the manifest.
func (s *absentSearch) enough(ctx context.Context, ns uint64, o *nsm.Object) int {
	if s.copies == nil {
		s.copies = make(map[uint64]int)
	}
	if n := s.copies[ns]; n > 0 {
		return n
	}
	full, err := s.get(ctx, ns, o.Name)
	if err != nil || full == nil {
		return 0
	}
	m, err := manifest.Decode(full.Manifest)
	if err != nil {
		return 0
	}
	s.copies[ns] = int(m.Policy.M) + 1
	return s.copies[ns]
}

// get returns an object with its manifest, nil if it is gone.
func (s *absentSearch) get(ctx context.Context, ns uint64, name string) (*nsm.Object, error) {
	host, err := s.hostOf(ctx, ns)
	if err != nil || host == nil {
		return nil, err
	}
	o, err := host.Get(ctx, ns, name, userfn.Consistent)
	if errors.Is(err, nsm.ErrNotFound) {
		return nil, nil
	}
	return o, err
}

// write writes the records that lack. An object that fails does not keep the others from
// getting theirs.
func (s *absentSearch) write(ctx context.Context, host *nsm.Client, ns uint64, l lacking) error {
	if len(l) == 0 {
		return nil
	}
	rec, known, _, err := s.namespace(ctx, ns)
	if err != nil || !known {
		return err
	}
	var errs []error
	for name, slots := range l {
		if s.budget == 0 || ctx.Err() != nil {
			break
		}
		s.budget--
		o, err := host.Get(ctx, ns, name, userfn.Consistent)
		if errors.Is(err, nsm.ErrNotFound) {
			continue
		}
		if err == nil {
			err = s.writeOf(ctx, rec.Name, o, slots)
		}
		if err != nil && len(errs) < 10 {
			errs = append(errs, fmt.Errorf("records of object %s of namespace %d: %w", name, ns, err))
		}
	}
	return errors.Join(errs...)
}

// writeOf writes the records that one object lacks.
func (s *absentSearch) writeOf(ctx context.Context, space string, o *nsm.Object, slots map[slot]osd.Info) error {
	m, err := manifest.Decode(o.Manifest)
	if err != nil {
		return err
	}
	if m.Inlined {
		s.written.Add(1)
		return records.Of(space, m, 0, o.Hash, o.Version, true).Write(ctx, s.fleet.Disks(), s.apply)
	}
	var errs []error
	for at, info := range slots {
		if at.chunk >= len(m.Chunks) || at.fragment >= len(m.Chunks[at.chunk].Fragments) || m.Chunks[at.chunk].Fragments[at.fragment].OSD != at.disk {
			continue // another object, or the fragment has moved
		}
		key := m.Key(at.chunk, at.fragment)
		u, err := records.Of(space, m, at.chunk, o.Hash, o.Version, true).Beside(key, info.Epoch)
		if err != nil {
			return err
		}
		// Only beside the fragment: it may be deleted meanwhile, together with its record.
		err = s.apply(ctx, at.disk, []osd.Assert{{Kind: osd.Exists, Key: key.Append(nil)}}, []osd.Update{u})
		if err == nil {
			s.written.Add(1)
		} else if !errors.Is(err, osd.ErrAssert) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *absentSearch) apply(ctx context.Context, disk uint64, asserts []osd.Assert, updates []osd.Update) error {
	d := s.fleet.Disk(disk)
	if d == nil {
		return fmt.Errorf("disk %d: %w: it left", disk, fleet.ErrMissing)
	}
	return d.ApplyAside(ctx, asserts, updates)
}

// record judges what a collection has found under the key of a recovery record. The record of a
// fragment is an orphan when the fragment would be one. That of an inline object is
// one when the NSM has no object of the name, whose version it knows it has given.
func (c *collection) record(ctx context.Context, d *fleet.Disk, info osd.Info) error {
	k, err := manifest.ParseRecoveryKey(info.Key)
	if err != nil {
		return nil // not ours to judge
	}
	s, err := c.space(ctx, k.Namespace)
	if err != nil {
		return err
	}
	if k.Inline() {
		orphan, err := c.inline(ctx, d, k, info, s)
		if err != nil || !orphan {
			return err
		}
		return c.add(ctx, k.Object, orphanOf(d, k.Namespace, info))
	}
	if !s.mayBeOrphan(info.Epoch, k.Namespace) {
		return nil
	}
	if s.host != nil {
		o, err := lookup(ctx, s.host, k)
		if err != nil || names(o, k, d.Number) {
			return err
		}
	}
	return c.keep(ctx, orphanOf(d, k.Namespace, info))
}

func orphanOf(d *fleet.Disk, ns uint64, info osd.Info) orphan { return orphan{d, ns, info} }

// inline reports whether the record of an inline object is an orphan. A record that cannot be
// read says nothing, and stays.
func (c *collection) inline(ctx context.Context, d *fleet.Disk, k manifest.Key, info osd.Info, s *space) (bool, error) {
	if s.doubt != nil || s.host == nil {
		return s.doubt == nil && s.may.gone, nil
	}
	if s.may.minimum == 0 { // not closed yet, as two collections saw it
		return false, nil
	}
	ns, err := s.host.Record(ctx, k.Namespace, userfn.Consistent)
	if err != nil {
		return false, err
	}
	if info.Epoch >= ns.NextVersion {
		// The NSM host is an older copy, or was one and a person took it for good (its disks
		// have refused it before). It will give the version, and then this is judged.
		return false, nil
	}
	r, err := readRecord(ctx, d, k, info)
	if err != nil {
		return false, nil
	}
	_, err = s.host.Stat(ctx, k.Namespace, r.Manifest.Name, userfn.Consistent)
	if errors.Is(err, nsm.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// readRecord reads a record and checks that it is that of the key.
func readRecord(ctx context.Context, d *fleet.Disk, k manifest.Key, info osd.Info) (*records.Record, error) {
	return records.Read(ctx, d.ReadAside, k, info.Size)
}
