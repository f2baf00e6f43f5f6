package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"math/rand/v2"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
)

// errNowhere: there is no disk that could take a fragment. It is no failure:
// the object stays below full width until a disk comes.
var errNowhere = errors.New("no disk can take it")

// conflicts bounds how often a repair is begun again because somebody else
// changed the object meanwhile.
const conflicts = 3

// Repair repairs what reads and scrub have reported.
func (m *Maintenance) Repair(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for ctx.Err() == nil {
		select {
		case b := <-m.bad:
			if err := m.repairBad(ctx, b); err != nil && !errors.Is(err, errNowhere) {
				errs = append(errs, err)
			}
			continue
		default:
		}
		break
	}
	return errors.Join(errs...)
}

// repairBad makes a reported fragment again, unless it proves to be good.
func (m *Maintenance) repairBad(ctx context.Context, b client.Bad) error {
	host, err := m.hostOf(ctx, b.Namespace)
	if err != nil || host == nil {
		return err
	}
	return m.repairObject(ctx, host, b.Namespace, b.Name, func(mf *manifest.Manifest, chunk, fragment int) bool {
		return mf.Object == b.Object && chunk == b.Chunk && fragment == b.Fragment &&
			mf.Chunks[chunk].Fragments[fragment].OSD == b.OSD
	})
}

// hostOf finds the NSM host of a namespace, nil if it is gone.
func (m *Maintenance) hostOf(ctx context.Context, ns uint64) (*nsm.Client, error) {
	hosts, err := m.opt.ABM.Hosts(ctx, nsm.Consistent)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		host, err := m.opt.Host(h.Number)
		if err != nil {
			return nil, err
		}
		if _, err = host.Namespace(ctx, ns, nsm.Consistent); err == nil {
			return host, nil
		} else if !errors.Is(err, nsm.ErrNamespaceNotFound) {
			return nil, err
		}
	}
	return nil, nil
}

// repairSpace brings the objects of a namespace to full width, those first that
// can bear least, and returns how many are below it still.
func (m *Maintenance) repairSpace(ctx context.Context, host *nsm.Client, ns uint64) (narrow uint64, err error) {
	buckets, err := host.Buckets(ctx, ns, nsm.Consistent)
	if err != nil {
		return 0, ignoreGone(err)
	}
	usable := m.usable()
	slices.SortFunc(buckets, func(a, b nsm.BucketCount) int {
		return (int(a.Present) - int(a.K)) - (int(b.Present) - int(b.K))
	})
	for _, b := range buckets {
		if b.Full() {
			continue
		}
		h := hope{ns: ns, bucket: b.Bucket}
		if m.hopeless[h] == usable {
			narrow += b.Objects
			continue
		}
		n, err := m.repairBucket(ctx, host, ns, b.Bucket)
		narrow += n
		if err != nil {
			return narrow, ignoreGone(err)
		}
		m.noteHope(h, n > 0, usable)
	}
	for number := range m.leave {
		h := hope{ns: ns, disk: number}
		if m.hopeless[h] == usable {
			continue
		}
		stay, err := m.drainDisk(ctx, host, ns, number)
		if err != nil {
			return narrow, ignoreGone(err)
		}
		m.noteHope(h, stay, usable)
	}
	return narrow, nil
}

// hope is something to repair that may be beyond the disks that there are.
// There is no use in going through all of it again before they change.
type hope struct {
	ns     uint64
	bucket nsm.Bucket // or
	disk   uint64
}

func (m *Maintenance) noteHope(h hope, none bool, usable string) {
	if none {
		m.hopeless[h] = usable
	} else {
		delete(m.hopeless, h)
	}
}

// ignoreGone: a namespace that was deleted meanwhile is no failure.
func ignoreGone(err error) error {
	if errors.Is(err, nsm.ErrNamespaceNotFound) {
		return nil
	}
	return err
}

func (m *Maintenance) repairBucket(ctx context.Context, host *nsm.Client, ns uint64, b nsm.Bucket) (narrow uint64, err error) {
	for after := ""; ; {
		list, next, err := host.ListByBucket(ctx, ns, b, after, nsm.MaxPage, nsm.Consistent)
		if err != nil {
			return narrow, err
		}
		for _, o := range list {
			switch err := m.repairObject(ctx, host, ns, o.Name, nil); {
			case errors.Is(err, errNowhere):
				narrow++
			case ctx.Err() != nil:
				return narrow, ctx.Err()
			case err != nil:
				narrow++
				m.stats.failures.Add(1)
				m.opt.Logger.Warn("object stays below full width", "namespace", ns, "object", o.Name, "err", err)
			}
		}
		if after = next; after == "" {
			return narrow, nil
		}
	}
}

// drainDisk moves what a namespace has on a disk that is lost, leaving, or
// missing for long. stay says that some could not be moved.
func (m *Maintenance) drainDisk(ctx context.Context, host *nsm.Client, ns, number uint64) (stay bool, err error) {
	for after := ""; ; {
		list, next, err := host.ListByOSD(ctx, ns, number, after, nsm.MaxPage, nsm.Consistent)
		if err != nil {
			return stay, err
		}
		for _, o := range list {
			err := m.repairObject(ctx, host, ns, o.Name, nil)
			if ctx.Err() != nil {
				return stay, ctx.Err()
			}
			stay = stay || err != nil
			if err != nil && !errors.Is(err, errNowhere) {
				m.stats.failures.Add(1)
				m.opt.Logger.Warn("object keeps fragments on a disk that is lost or leaving", "namespace", ns, "object", o.Name, "disk", number, "err", err)
			}
		}
		if after = next; after == "" {
			return stay, nil
		}
	}
}

// suspicion says of a fragment that it was reported bad.
type suspicion func(mf *manifest.Manifest, chunk, fragment int) bool

// repairObject makes those fragments of an object again that are nowhere, on a
// disk of leave, or suspected and indeed bad. errNowhere: of some that is not
// possible for want of disks.
func (m *Maintenance) repairObject(ctx context.Context, host *nsm.Client, ns uint64, name string, suspect suspicion) error {
	for again := 0; ; again++ {
		o, err := host.Get(ctx, ns, name, nsm.Consistent)
		if errors.Is(err, nsm.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		mf, err := manifest.Decode(o.Manifest)
		if err != nil {
			return fmt.Errorf("manifest of object %s of namespace %d: %w", name, ns, err)
		}
		if mf.Inlined {
			return nil
		}
		r := &repair{m: m, host: host, ns: ns, o: o, mf: mf, suspect: suspect}
		if err = r.run(ctx); errors.Is(err, nsm.ErrConflict) && again < conflicts {
			continue
		}
		return err
	}
}

// repair is the repair of one object, chunk by chunk: each change of a chunk is
// committed by itself.
type repair struct {
	m       *Maintenance
	host    *nsm.Client
	ns      uint64
	o       *nsm.Object
	mf      *manifest.Manifest
	suspect suspicion
}

func (r *repair) run(ctx context.Context) error {
	nowhere := false
	for chunk := range r.mf.Chunks {
		lost := r.lost(ctx, chunk)
		if len(lost) == 0 {
			continue
		}
		switch err := r.chunk(ctx, chunk, lost); {
		case errors.Is(err, errNowhere):
			nowhere = true
		case err != nil:
			return err
		}
	}
	if nowhere {
		return errNowhere
	}
	return nil
}

// lost returns the fragments of a chunk that must be made again.
func (r *repair) lost(ctx context.Context, chunk int) []int {
	var list []int
	for i, f := range r.mf.Chunks[chunk].Fragments {
		switch {
		case f.OSD == policy.None, r.m.leave[f.OSD]:
			list = append(list, i)
		case r.suspect != nil && r.suspect(r.mf, chunk, i):
			if _, err := r.fetch(ctx, chunk, i); err != nil && !errors.Is(err, fleet.ErrMissing) {
				list = append(list, i)
			}
		}
	}
	return list
}

// chunk makes lost fragments of a chunk again, as many as there are disks for.
func (r *repair) chunk(ctx context.Context, chunk int, lost []int) error {
	c := &r.mf.Chunks[chunk]
	have := make([]uint64, len(c.Fragments))
	for i, f := range c.Fragments {
		if !slices.Contains(lost, i) {
			have[i] = f.OSD
		}
	}
	places := policy.Place(r.mf.Policy, r.m.opt.Fleet.Disks(), have, chance{})
	var todo []int
	for _, i := range lost {
		// Data fragments are read first, so they are made first.
		if places[i] != policy.None {
			todo = append(todo, i)
		}
	}
	if len(todo) == 0 {
		return errNowhere
	}
	next := *r.mf
	next.Revision = r.o.Revision + 1
	next.Chunks = slices.Clone(r.mf.Chunks)
	next.Chunks[chunk].Fragments = slices.Clone(c.Fragments)
	epochs, err := r.host.Epochs(ctx, r.ns, nsm.Consistent)
	if err != nil {
		return err
	}
	var changes []nsm.Change
	shards, err := r.sources(ctx, chunk, lost)
	if err != nil {
		return err
	}
	for _, i := range todo {
		if err := r.make(ctx, &next, chunk, i, places[i], shards, epochs.Next-1); err != nil {
			return err
		}
		changes = append(changes, nsm.Change{Chunk: uint32(chunk), Fragment: uint16(i), To: nsm.Fragment{OSD: places[i], Version: next.Revision}})
	}
	encoded, err := next.Append(nil)
	if err != nil {
		return err
	}
	revision, err := r.host.Update(ctx, r.ns, nsm.Update{
		Name: r.o.Name, ID: r.o.ID, Revision: r.o.Revision, Epoch: epochs.Next - 1, Changes: changes, Manifest: encoded,
	})
	if errors.Is(err, nsm.ErrNotFound) {
		return nil // deleted meanwhile: what was made is garbage
	}
	if err != nil {
		return err
	}
	r.mf, r.o.Revision = &next, revision
	r.m.stats.repaired.Add(uint64(len(todo)))
	r.m.stats.repairedBytes.Add(uint64(len(todo)) * uint64(c.Shard))
	r.m.opt.Invalidate(r.ns, r.o.Name)
	if len(todo) < len(lost) {
		return errNowhere
	}
	return nil
}

// make writes fragment i again, on another disk.
func (r *repair) make(ctx context.Context, next *manifest.Manifest, chunk, i int, number uint64, shards [][]byte, epoch uint64) error {
	data, crcs, err := r.content(chunk, i, shards)
	if err != nil {
		return err
	}
	f := &next.Chunks[chunk].Fragments[i]
	f.OSD, f.Version = number, next.Revision
	d := r.m.opt.Fleet.Disk(number)
	if d == nil {
		return fmt.Errorf("disk %d left", number)
	}
	return d.Apply(ctx, nil, []osd.Update{{Key: next.Key(chunk, i).Append(nil), Value: osd.Value{
		Data: data, CRCs: crcs, Epoch: epoch, Seed: manifest.Seed(r.mf.Object, uint32(chunk), uint32(i)),
	}}})
}

// content returns fragment i: as it was read, or made from k others.
func (r *repair) content(chunk, i int, shards [][]byte) ([]byte, []uint32, error) {
	if data := shards[i]; data != nil {
		seed := manifest.Seed(r.mf.Object, uint32(chunk), uint32(i))
		return data, osd.AppendCRCs(make([]uint32, 0, osd.Blocks(len(data))), seed, 0, data), nil
	}
	return object.Repair(r.mf, chunk, i, shards)
}

// sources reads k good fragments of a chunk. A disk that is leaving is as good
// as any to read from.
func (r *repair) sources(ctx context.Context, chunk int, lost []int) ([][]byte, error) {
	width, k := r.mf.Policy.Width(), int(r.mf.Policy.K)
	shards := make([][]byte, width)
	got := 0
	var errs []error
	for _, pass := range []bool{false, true} { // those that are to stay first
		for i := 0; i < width && got < k; i++ {
			if shards[i] != nil || slices.Contains(lost, i) != pass {
				continue
			}
			data, err := r.fetch(ctx, chunk, i)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			shards[i] = data
			got++
		}
	}
	if got < k {
		return nil, fmt.Errorf("object %s of namespace %d: chunk %d has %d of the %d fragments that are needed: %w",
			r.o.Name, r.ns, chunk, got, k, errors.Join(errs...))
	}
	return shards, nil
}

// fetch reads a whole fragment and checks it against the manifest.
func (r *repair) fetch(ctx context.Context, chunk, i int) ([]byte, error) {
	f := r.mf.Chunks[chunk].Fragments[i]
	d := r.m.opt.Fleet.Disk(f.OSD)
	if d == nil {
		return nil, fmt.Errorf("fragment %d is on no disk that is there: %w", i, fleet.ErrMissing)
	}
	data := make([]byte, f.Length)
	crcs := make([]uint32, osd.Blocks(len(data)))
	if err := d.Read(ctx, r.mf.Key(chunk, i).Append(nil), 0, data, crcs); err != nil {
		return nil, err
	}
	return data, object.VerifyFragment(r.mf, chunk, i, data)
}

// chance is the chance that placement needs.
type chance struct{}

func (chance) Float64() float64                   { return rand.Float64() }
func (chance) Shuffle(n int, swap func(i, j int)) { rand.Shuffle(n, swap) }
