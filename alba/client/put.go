package client

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/alba/records"
	"openvstorage/backend"

	"github.com/cespare/xxhash/v2"
)

// attempts bounds how often a put is begun again, each time for a reason: an
// epoch that was closed meanwhile, a disk that left.
const attempts = 8

// hashBlock is what one word of contentHash covers, in bytes.
const hashBlock = 4096

// contentHash tells objects of different bytes apart: SHA-256 over the size and the 64-bit
// xxHash of each 4 KiB, little-endian. It only decides whether a put of a name that is
// taken repeats a put that succeeded. What is read back is checked against the checksums
// of its fragments.
func contentHash(data []byte) [32]byte {
	h := sha256.New()
	var b [1024]byte
	binary.LittleEndian.PutUint64(b[:], uint64(len(data)))
	n := 8
	for len(data) > 0 {
		part := data[:min(len(data), hashBlock)]
		data = data[len(part):]
		binary.LittleEndian.PutUint64(b[n:], xxhash.Sum64(part))
		if n += 8; n == len(b) {
			h.Write(b[:])
			n = 0
		}
	}
	h.Write(b[:n])
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// put stores an object and returns the version that it got.
func (wr *writer) put(ctx context.Context, s *space, name string, data []byte, mode nsm.Mode, version uint64) (uint64, error) {
	if !wr.enter() {
		return 0, backend.ErrClosed
	}
	defer wr.late.Done()
	p, err := s.storage(ctx)
	if err != nil {
		return 0, err
	}
	if uint64(len(data)) > p.ObjectMax {
		return 0, fmt.Errorf("object %s of %d bytes: preset %s takes %d at most", name, len(data), p.Name, p.ObjectMax)
	}
	inline := len(data) <= int(p.InlineMax) || mode == nsm.ReplaceIf && len(data) <= manifest.InlineLimit
	if mode == nsm.CreateOrEqual && !inline {
		// A name that is taken is seen before anything is written.
		if o, err := s.nsm.Stat(ctx, s.number, name, userfn.Consistent); err == nil {
			if o.Size == uint64(len(data)) && o.Hash == contentHash(data) {
				return o.Version, nil
			}
			return 0, fmt.Errorf("object %s: %w, version %d", name, backend.ErrExists, o.Version)
		}
	}
	u := &upload{by: wr, s: s, name: name, data: data, preset: p, mode: mode, version: version, hash: contentHash(data)}
	for i := 0; ; i++ {
		var got uint64
		if inline {
			got, err = u.inline(ctx)
		} else {
			got, err = u.coded(ctx)
		}
		if err == nil {
			wr.counts.plain.Add(uint64(len(data)))
			return got, nil
		}
		if i+1 == attempts || ctx.Err() != nil || !wr.mayRepeat(ctx, s, err) {
			return 0, translate(err)
		}
		wr.counts.retries.Add(1)
	}
}

// mayRepeat reports whether another attempt may succeed. It first brings up to date what
// the attempt found to be out of date.
func (wr *writer) mayRepeat(ctx context.Context, s *space, err error) bool {
	switch {
	case errors.Is(err, nsm.ErrEpoch):
		s.staleEpoch()
		return true
	case errors.Is(err, nsm.ErrIDUsed):
		return true
	case errors.Is(err, nsm.ErrOSD):
		return wr.refresh != nil && wr.refresh(ctx) == nil
	}
	return false
}

// upload is one put: what stays the same over its attempts.
type upload struct {
	by      *writer
	s       *space
	name    string
	data    []byte
	preset  preset.Preset
	mode    nsm.Mode
	version uint64
	hash    [32]byte
}

// begin draws what an attempt has of its own.
func (u *upload) begin(ctx context.Context) (m *manifest.Manifest, master []byte, err error) {
	epoch, err := u.s.currentEpoch(ctx)
	if err != nil {
		return nil, nil, err
	}
	id, err := newObjectID()
	if err != nil {
		return nil, nil, err
	}
	if master, err = u.by.keys.master(u.preset.Scheme); err != nil {
		return nil, nil, err
	}
	if err := u.by.keys.proven(ctx, u.preset.Scheme); err != nil {
		return nil, nil, err
	}
	m = &manifest.Manifest{
		Namespace: u.s.number, Name: u.name, Object: id, Size: uint64(len(u.data)), Epoch: epoch, Scheme: u.preset.Scheme,
		Time: time.Now().UnixNano(),
	}
	if u.mode == nsm.ReplaceIf {
		m.Version = u.version + 1
	}
	return m, master, nil
}

// least is the version that the object has at least: newer than all that this client has
// seen of the namespace.
func (u *upload) least() uint64 { return max(u.s.seen.Load(), u.version) + 1 }

// commit makes the object of a manifest: the moment from which it exists.
func (u *upload) commit(ctx context.Context, m *manifest.Manifest) (nsm.PutResult, error) {
	encoded, err := m.Append(nil)
	if err != nil {
		return nsm.PutResult{}, err
	}
	o := describe(m, encoded)
	o.Hash = u.hash
	r, err := u.s.nsm.Put(ctx, u.s.number, u.mode, u.version, o)
	if err != nil {
		return r, err
	}
	u.s.see(r.Version)
	u.by.counts.manifests.Add(uint64(len(encoded)))
	if r.Replaced != nil {
		u.by.deleted()
	}
	return r, nil
}

// describe returns what the NSM must know of a manifest.
func describe(m *manifest.Manifest, encoded []byte) *nsm.Object {
	o := &nsm.Object{Name: m.Name, ID: m.Object, Epoch: m.Epoch, Size: m.Size, Manifest: encoded}
	if m.Inlined {
		return o
	}
	o.Policy = nsm.Policy(m.Policy)
	o.Chunks = make([]nsm.Chunk, len(m.Chunks))
	for i, k := range m.Chunks {
		o.Chunks[i] = nsm.Chunk{Length: k.Shard, Fragments: make([]nsm.Fragment, len(k.Fragments))}
		for j, f := range k.Fragments {
			o.Chunks[i].Fragments[j] = nsm.Fragment{OSD: f.OSD, Version: f.Version}
		}
	}
	return o
}

// inline stores an object in its manifest.
func (u *upload) inline(ctx context.Context) (uint64, error) {
	m, master, err := u.begin(ctx)
	if err != nil {
		return 0, err
	}
	m.Policy = u.preset.Policies[0]
	// It needs no disk, and so must not wait for a coder, which uploads to disks hold.
	encoder, err := object.NewEncoder(params(m, master))
	if err != nil {
		return 0, err
	}
	if err := encoder.Inline(m, u.data); err != nil {
		return 0, err
	}
	r, err := u.commit(ctx, m)
	if err == nil && !r.Existed {
		u.by.counts.inline.Add(uint64(len(u.data)))
		u.by.owe(records.Of(u.s.name, m, 0, u.hash, r.Version, true))
	}
	return r.Version, err
}

// coded stores an object as fragments.
func (u *upload) coded(ctx context.Context) (uint64, error) {
	m, master, err := u.begin(ctx)
	if err != nil {
		return 0, err
	}
	disks := u.by.fleet.Disks()
	i, _, ok := policy.Choose(u.preset.Policies, disks)
	if !ok {
		return 0, u.by.noRoom(u.s, u.preset, disks)
	}
	m.Policy = u.preset.Policies[i]
	chunks, err := u.write(ctx, m, master, disks)
	if err != nil {
		return 0, err
	}
	r, err := u.commit(ctx, m)
	if err != nil {
		return 0, err
	}
	if m.Present() < m.Policy.Width() && !r.Existed {
		u.by.counts.narrow.Add(1)
		u.by.enterLate(u.s, m, r.Version, chunks)
	}
	return r.Version, nil
}

// write encodes the chunks of an object and writes their fragments, enough of
// each chunk to be accepted, and enters in the manifest where they are.
func (u *upload) write(ctx context.Context, m *manifest.Manifest, master []byte, disks []policy.Disk) (chunks []*chunkWrite, err error) {
	x, err := u.by.chunks.coder(ctx)
	if err != nil {
		return nil, err
	}
	defer u.by.chunks.end(x)
	if err := x.reset(m, master); err != nil {
		return nil, err
	}
	size := chunkSize(len(u.data), int(u.preset.ChunkSize))
	m.Chunks = make([]manifest.Chunk, (len(u.data)+size-1)/size)
	chunks = make([]*chunkWrite, len(m.Chunks))
	defer func() {
		if err != nil {
			abandon(chunks)
		}
	}()
	for i := range m.Chunks {
		if i >= codedMax { // there is memory for so many
			if err := chunks[i-codedMax].wait(ctx); err != nil {
				return nil, err
			}
		}
		part := u.data[i*size : min((i+1)*size, len(u.data))]
		if chunks[i], err = u.chunk(ctx, x, m, i, part, disks); err != nil {
			return nil, err
		}
	}
	for i, w := range chunks {
		if err := w.wait(ctx); err != nil {
			return nil, err
		}
		w.settle(&m.Chunks[i])
	}
	return chunks, nil
}

// abandon gives up what is being written of an upload that has failed.
func abandon(chunks []*chunkWrite) {
	for _, w := range chunks {
		if w != nil {
			w.leave(true)
		}
	}
}

// chunk encodes a chunk and begins to write it.
func (u *upload) chunk(ctx context.Context, x *coder, m *manifest.Manifest, i int, part []byte, disks []policy.Disk) (*chunkWrite, error) {
	into, err := u.by.chunks.take(ctx, x)
	if err != nil {
		return nil, err
	}
	defer u.by.chunks.release(into) // each write of a fragment is a user of its own
	if err := x.encoder.Chunk(&into.Coded, i, part); err != nil {
		return nil, err
	}
	m.Chunks[i] = into.Chunk
	m.Chunks[i].Fragments = append([]manifest.Fragment(nil), into.Chunk.Fragments...)
	record, err := records.Of(u.s.name, m, i, u.hash, u.least(), false).Append(nil)
	if err != nil {
		return nil, err
	}
	return u.by.writeChunk(m, i, into, u.by.prompt(m.Policy, disks), record), nil
}

// prompt returns the disks for a chunk. If the policy can be kept without them, it leaves
// out slow disks that still have something to write. If the chunk gets full width without
// them, or much memory is lent to late fragments, it also leaves out disks that are late with
// fragments: each put would wait for a disk that hangs, and it must not take the memory of all.
func (wr *writer) prompt(p policy.Policy, disks []policy.Disk) []policy.Disk {
	some := wr.without(disks, func(d *fleet.Disk) bool { return d.Behind() || d.WritesLate() || wr.overdue.has(d.Number) })
	if _, width, ok := policy.Choose([]policy.Policy{p}, some); ok && width == p.Width() {
		return some
	}
	much := wr.overdue.disks.Load() > 0 && wr.chunks.lent() > wr.chunks.limit/2
	some = wr.without(disks, func(d *fleet.Disk) bool { return d.Behind() || much && wr.overdue.has(d.Number) })
	if _, _, ok := policy.Choose([]policy.Policy{p}, some); !ok {
		return disks
	}
	return some
}

// without returns the disks, some of them failing.
func (wr *writer) without(disks []policy.Disk, out func(d *fleet.Disk) bool) []policy.Disk {
	some := disks
	for i := range disks {
		d := wr.fleet.Disk(disks[i].OSD)
		if d == nil || !out(d) {
			continue
		}
		if &some[0] == &disks[0] {
			some = slices.Clone(disks) // others have them too
		}
		some[i].Failing = true
	}
	return some
}

// chunkSize returns the plain bytes of a chunk. An object that is up to a quarter larger
// than a chunk stays in one.
func chunkSize(size, chunk int) int {
	if size <= min(chunk+chunk/4, preset.ChunkMax) {
		return size
	}
	return chunk
}

// noRoom says why no policy can be kept.
func (wr *writer) noRoom(s *space, p preset.Preset, disks []policy.Disk) error {
	var errs []error
	full := 0
	for _, d := range wr.fleet.All() {
		u := d.Known()
		switch err := d.Missing(); {
		case err != nil:
			errs = append(errs, err)
		case u.Full:
			full++
			errs = append(errs, fmt.Errorf("disk %d (%s) is full", d.Number, d.Place))
		case u.ReadOnly != nil:
			errs = append(errs, fmt.Errorf("disk %d (%s) takes no writes: %w", d.Number, d.Place, u.ReadOnly))
		case d.Condition().State == fleet.Failing:
			errs = append(errs, fmt.Errorf("disk %d (%s) is failing: %s", d.Number, d.Place, d.Condition().Reason))
		}
	}
	err := fmt.Errorf("namespace %s: none of the policies of preset %s can be kept with the disks that take writes", s.name, p.Name)
	if len(errs) > 0 {
		err = fmt.Errorf("%w: %w", err, errors.Join(errs...))
	}
	if full > 0 {
		return fmt.Errorf("%w: %w", backend.ErrNoSpace, err)
	}
	return err
}
