package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/records"

	"golang.org/x/sys/unix"

	"openvstorage/internal/chance"
)

// chunk makes lost fragments of a chunk again, as many as there are disks for, and
// commits those that were written, whatever became of the others.
func (r *repair) chunk(ctx context.Context, chunk int) error {
	lost, err := r.lost(ctx, chunk)
	if len(lost) == 0 {
		return err
	}
	w := r.rewrite(chunk, lost)
	// A fragment that has moved makes room for another: rounds go on until none moves.
	for before := -1; before < len(w.changes) && len(w.changes) < len(lost); {
		before = len(w.changes)
		if err := w.round(ctx); err != nil {
			w.errs = append(w.errs, err)
			break
		}
	}
	if e := w.commit(ctx); e != nil {
		return e
	}
	if len(w.changes) == len(lost) {
		return err
	}
	if err = errors.Join(append(w.errs, err)...); err == nil {
		return &beyond{errNowhere, r.by.disks.fingerprint()}
	}
	return err
}

// rewrite prepares to make fragments of a chunk anew.
func (r *repair) rewrite(chunk int, lost []lostFragment) *rewrite {
	w := &rewrite{repair: r, chunk: chunk, disks: r.by.disks.candidates(r.mf.Chunks[chunk].Shard), lost: lost}
	w.next = *r.mf
	w.next.Revision = r.o.Revision + 1
	w.next.Chunks = slices.Clone(r.mf.Chunks)
	w.next.Chunks[chunk].Fragments = slices.Clone(r.mf.Chunks[chunk].Fragments)
	w.have = make([]uint64, r.mf.Policy.Width())
	for i, f := range r.mf.Chunks[chunk].Fragments {
		w.have[i] = f.OSD
	}
	return w
}

// rewrite is the new fragments of one chunk.
type rewrite struct {
	*repair
	chunk   int
	disks   []policy.Disk
	lost    []lostFragment
	have    []uint64 // where the fragments are, the new ones too
	next    manifest.Manifest
	shards  [][]byte // k of them, once they are needed
	to      uint64   // the disk for them; policy.None: any that may take one
	epoch   uint64   // under which fragments are written, once they are
	space   string   // the namespace's name, for records; "": the ABM does not know it
	changes []nsm.Change
	errs    []error // of disks that did not take one
}

// round gives each lost fragment that was not made yet to a disk, if there is one.
// The error says why none can be made.
func (w *rewrite) round(ctx context.Context) error {
	for _, l := range w.lost {
		if w.made(l.index) {
			continue
		}
		for number := w.place(l.index); number != policy.None; number = w.place(l.index) {
			if err := w.prepare(ctx); err != nil {
				return err
			}
			err := w.write(ctx, l.index, number)
			if err == nil {
				break
			}
			if ctx.Err() != nil || errors.Is(err, osd.ErrAssert) || damaged(err) && !errors.Is(err, unix.EIO) {
				return err // another disk would not do better
			}
			w.errs = append(w.errs, err)
			w.leaveOut(number)
		}
	}
	return nil
}

func (w *rewrite) made(i int) bool {
	return slices.ContainsFunc(w.changes, func(c nsm.Change) bool { return int(c.Fragment) == i })
}

func (w *rewrite) place(i int) uint64 {
	if w.to != policy.None {
		for _, d := range w.disks {
			if d.OSD == w.to && d.Usable() {
				return w.to
			}
		}
		return policy.None
	}
	return place(w.mf.Policy, w.disks, w.have, i, chance.Chance{})
}

// leaveOut has a disk that did not take a fragment get no other one.
func (w *rewrite) leaveOut(number uint64) {
	for i := range w.disks {
		if w.disks[i].OSD == number {
			w.disks[i].Failing = true
		}
	}
}

// prepare gets what making fragments needs, once there is a disk for one.
func (w *rewrite) prepare(ctx context.Context) error {
	if w.shards != nil {
		return nil
	}
	reads := min(len(w.lost), int(w.mf.Policy.K))
	if err := w.by.pace.Wait(ctx, uint64(reads+len(w.lost))*uint64(w.mf.Chunks[w.chunk].Shard)); err != nil {
		return err
	}
	epochs, err := w.host.Epochs(ctx, w.ns, userfn.Consistent)
	if err != nil {
		return err
	}
	w.epoch = epochs.Next - 1
	rec, _, _, err := w.by.namespace(ctx, w.ns)
	if err != nil {
		return err
	}
	w.space = rec.Name
	if w.shards = w.copies(ctx); w.shards == nil {
		w.shards, err = w.sources(ctx, w.chunk, w.lost)
	}
	return err
}

// write makes fragment i again on a disk. The disk may have the key already, from a
// repair that took the same revision and did not get to its commit. What was written
// under a newer epoch stays (rule O7, see collection.delete).
func (w *rewrite) write(ctx context.Context, i int, number uint64) error {
	data, crcs, err := w.content(w.chunk, i, w.shards)
	if err != nil {
		return err
	}
	d := w.by.opt.Fleet.Disk(number)
	if d == nil {
		return fmt.Errorf("disk %d: %w: it left", number, fleet.ErrMissing)
	}
	f := &w.next.Chunks[w.chunk].Fragments[i]
	was := *f
	f.OSD, f.Version = number, w.next.Revision
	at := w.next.Key(w.chunk, i)
	key := at.Append(nil)
	updates := []osd.Update{{Key: key, Value: osd.Value{
		Data: data, CRCs: crcs, Epoch: w.epoch, Seed: manifest.Seed(w.mf.Object, uint32(w.chunk), uint32(i)),
	}}}
	if w.space != "" { // else there is no name to write down, and the fragment is worth more
		record, err := records.Of(w.space, &w.next, w.chunk, w.o.Hash, w.o.Version, true).Beside(at, w.epoch)
		if err != nil {
			*f = was
			return err
		}
		updates = append(updates, record)
	}
	err = d.ApplyAside(ctx, []osd.Assert{{Kind: osd.NotNewer, Key: key, Epoch: w.epoch}}, updates)
	if err != nil {
		*f = was
		return err
	}
	w.have[i] = number
	w.changes = append(w.changes, nsm.Change{Chunk: uint32(w.chunk), Fragment: uint16(i), To: nsm.Fragment{OSD: number, Version: f.Version}})
	return nil
}

// commit enters what was written in the manifest. After an error that is not the NSM's
// own the entry may have been made or not: the next try begins with what the NSM says
// then.
func (w *rewrite) commit(ctx context.Context) error {
	if len(w.changes) == 0 {
		return nil
	}
	encoded, err := w.next.Append(nil)
	if err != nil {
		return err
	}
	// An agent that has lost its piece commits nothing. What it wrote is garbage.
	if w.by.holds != nil {
		if err := w.by.holds(); err != nil {
			return err
		}
	}
	revision, err := w.host.Update(ctx, w.ns, nsm.Update{
		Name: w.o.Name, ID: w.o.ID, Revision: w.o.Revision, Epoch: w.epoch, Changes: w.changes, Manifest: encoded,
	})
	w.by.opt.Invalidate(w.ns, w.o.Name) // also after an error: the entry may have been made
	if err != nil {
		return err
	}
	o := *w.o
	o.Revision = revision
	w.repair.o, w.repair.mf = &o, &w.next
	w.by.repaired.Add(uint64(len(w.changes)))
	w.by.bytes.Add(uint64(len(w.changes)) * uint64(w.next.Chunks[w.chunk].Shard))
	return nil
}
