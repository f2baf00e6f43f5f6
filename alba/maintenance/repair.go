package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance/pace"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/backend"

	"golang.org/x/sys/unix"
)

// Why the disks, as they are, do not allow a repair.
var (
	errNowhere    = errors.New("no disk can take it")
	errUnreadable = errors.New("too few of its fragments are on disks that are there")
)

// errShort is matched by the error of a repair that could not read enough good
// fragments, though their disks are there.
var errShort = errors.New("too few of its fragments can be read")

// beyond is the error of a repair that the disks do not allow. It is the only kind of
// failure that does not pass by itself: the object is tried again when there are other
// disks, other room on them, or others to be left. After every other failure it is tried
// again after a while.
type beyond struct {
	lack  error
	disks string // their fingerprint
}

func (e *beyond) Error() string { return e.lack.Error() }
func (e *beyond) Unwrap() error { return e.lack }

// conflicts bounds how often a repair is begun again at once because somebody else
// changed the object, the epoch was closed, or a newer repair was there.
const conflicts = 3

// repairer makes fragments again: those that were reported bad, those that an object
// lacks, and those on disks that are to be left.
type repairer struct {
	managers
	opt       *Options
	disks     *diskWatch
	pending   *pending
	tried     *attempts
	pace      *pace.Pace
	report    func(client.Bad) bool
	meanwhile func(ctx context.Context) bool // does what cannot wait for the end of a pass; reports whether a tick has passed

	turn      sync.Mutex            // one pass at a time goes through objects: see begin
	team      *together             // nil: this agent is alone
	holds     func() error          // why nothing may be changed any more on behalf of the piece at hand; nil: it is alone
	fruitless map[listing]fruitless // listings of which the disks did not allow all; of whoever has the turn

	repaired, bytes atomic.Uint64 // fragments that were made again, and their bytes
}

// begin waits for the turn to go through objects, which a pass has until end. A survey
// and a repair of what was reported would otherwise repair the same objects side by
// side, and each would make the other begin again.
func (r *repairer) begin() { r.turn.Lock() }
func (r *repairer) end()   { r.turn.Unlock() }

// reported repairs the objects of pending that are due. The turn is the caller's.
func (r *repairer) reported(ctx context.Context) error {
	var errs []error
	for _, d := range r.pending.due(r.opt.Now(), r.disks.fingerprint()) {
		host, err := r.hostOf(ctx, d.ns)
		if err == nil && host != nil {
			err = ignoreGone(r.object(ctx, host, d, nil))
		}
		var b *beyond
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			r.pending.repaired(d)
			continue
		case errors.As(err, &b) && len(d.bad) == 0:
			r.pending.repaired(d) // the survey has it
			continue
		case b == nil && len(errs) < 10:
			errs = append(errs, err)
		}
		r.putOff(d.objectKey, err)
		r.meanwhile(ctx)
	}
	return errors.Join(errs...)
}

// object makes those fragments of an object again that are on no disk, on a disk that is
// to be left, or reported and indeed bad. o is the object as it was a moment ago, or nil
// if it is to be fetched. The error is a *beyond if the disks do not allow some of that
// and all the rest was done.
func (r *repairer) object(ctx context.Context, host *nsm.Client, d due, o *nsm.Object) (err error) {
	asked := false // once more, after too few fragments could be read
	for again := 0; ; again++ {
		if o == nil {
			o, err = host.Get(ctx, d.ns, d.name, userfn.Consistent)
			if errors.Is(err, nsm.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		mf, err := manifest.Decode(o.Manifest)
		if err != nil {
			return fmt.Errorf("manifest of object %s of namespace %d: %w", d.name, d.ns, err)
		}
		if mf.Inlined {
			return nil
		}
		once := &repair{by: r, host: host, due: d, o: o, mf: mf}
		err = once.run(ctx)
		if again < conflicts && (errors.Is(err, nsm.ErrConflict) || errors.Is(err, nsm.ErrEpoch) || errors.Is(err, osd.ErrAssert)) {
			o = nil
			continue
		}
		if !asked && errors.Is(err, errShort) { // perhaps it was deleted meanwhile: deletion waits for no repair
			o, asked = nil, true
			continue
		}
		return err
	}
}

// repair is the repair of one object, chunk by chunk: each change of a chunk is
// committed by itself.
type repair struct {
	by   *repairer
	host *nsm.Client
	due
	o  *nsm.Object
	mf *manifest.Manifest
}

// run repairs all chunks that it can. If one chunk failed and the disks do not allow
// another, the failure is returned: the object is then tried again soon.
func (r *repair) run(ctx context.Context) error {
	var notNow error
	var errs []error
	for chunk := range r.mf.Chunks {
		err := r.chunk(ctx, chunk)
		var b *beyond
		switch {
		case err == nil:
		case errors.Is(err, nsm.ErrNotFound):
			return nil // deleted meanwhile: what was made is garbage
		case errors.As(err, &b):
			notNow = err
		case ctx.Err() != nil, errors.Is(err, nsm.ErrConflict), errors.Is(err, nsm.ErrEpoch):
			return err
		default:
			errs = append(errs, fmt.Errorf("chunk %d: %w", chunk, err))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("object %s of namespace %d: %w", r.o.Name, r.ns, errors.Join(errs...))
	}
	return notNow
}

// lost returns the fragments of a chunk that must be made again. The error is that of
// reading a reported fragment of which nobody can say yet whether it is bad.
func (r *repair) lost(ctx context.Context, chunk int) (list []lostFragment, err error) {
	for i, f := range r.mf.Chunks[chunk].Fragments {
		_, there := r.by.opt.Fleet.Alive(f.OSD)
		switch {
		case f.OSD == policy.None:
			list = append(list, lostFragment{i, false})
		case r.by.disks.leaves(f.OSD):
			list = append(list, lostFragment{i, there})
		case r.reported(chunk, i):
			switch _, e := r.fetch(ctx, chunk, i); {
			case e == nil, errors.Is(e, fleet.ErrMissing): // it is good, or its disk is away with it
			case damaged(e):
				list = append(list, lostFragment{i, false})
			default:
				err = errors.Join(err, e)
			}
		}
	}
	urgentFirst(list)
	return list, err
}

// reported reports whether a fragment was said to be bad where it is now.
func (r *repair) reported(chunk, fragment int) bool {
	for _, b := range r.bad {
		if r.mf.Object == b.Object && chunk == b.Chunk && fragment == b.Fragment && r.mf.Chunks[chunk].Fragments[fragment].OSD == b.OSD {
			return true
		}
	}
	return false
}

// damaged reports whether an error of reading a fragment says that the fragment is
// not what was written, or that its disk cannot give it any more. All others, such
// as too few file descriptors, say nothing of the fragment.
func damaged(err error) bool {
	for _, e := range []error{osd.ErrNotFound, osd.ErrCorrupt, osd.ErrInvalid, backend.ErrCorrupt, unix.EIO, unix.ENODATA, unix.EILSEQ} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// content returns fragment i: as it was read, or made from k others.
func (r *repair) content(chunk, i int, shards [][]byte) ([]byte, []uint32, error) {
	if data := shards[i]; data != nil {
		seed := manifest.Seed(r.mf.Object, uint32(chunk), uint32(i))
		return data, osd.AppendCRCs(make([]uint32, 0, osd.Blocks(len(data))), seed, 0, data), nil
	}
	return object.Repair(r.mf, chunk, i, shards)
}

// sources reads k good fragments of a chunk, those that are to stay first. A disk that
// is to be left is as good as any to read from. A fragment that proves to be bad is
// reported.
func (r *repair) sources(ctx context.Context, chunk int, lost []lostFragment) ([][]byte, error) {
	width, k := r.mf.Policy.Width(), int(r.mf.Policy.K)
	shards := make([][]byte, width)
	got, there := 0, 0
	var errs []error
	for _, last := range []bool{false, true} { // those that are to stay first
		for i := 0; i < width && got < k; i++ {
			if slices.ContainsFunc(lost, func(l lostFragment) bool { return l.index == i }) != last {
				continue
			}
			data, err := r.fetch(ctx, chunk, i)
			if !errors.Is(err, fleet.ErrMissing) {
				there++
			}
			if err != nil {
				errs = append(errs, err)
				r.suspect(chunk, i, err)
				continue
			}
			shards[i] = data
			got++
		}
	}
	if got == k {
		return shards, nil
	}
	err := fmt.Errorf("%d of the %d fragments that are needed: %w", got, k, errors.Join(errs...))
	if there < k && ctx.Err() == nil {
		return nil, &beyond{fmt.Errorf("%w: %w", errUnreadable, err), r.by.disks.fingerprint()}
	}
	return nil, fmt.Errorf("%w: %w", errShort, err)
}

// suspect reports a fragment that another one was to be made from.
func (r *repair) suspect(chunk, i int, err error) {
	f := r.mf.Chunks[chunk].Fragments[i]
	if f.OSD != policy.None && damaged(err) && !r.reported(chunk, i) {
		r.by.report(client.Bad{Namespace: r.ns, Name: r.o.Name, Object: r.mf.Object, Chunk: chunk, Fragment: i, OSD: f.OSD, Err: err})
	}
}

// fetch reads a whole fragment and checks it against the manifest.
func (r *repair) fetch(ctx context.Context, chunk, i int) ([]byte, error) {
	f := r.mf.Chunks[chunk].Fragments[i]
	d := r.by.opt.Fleet.Disk(f.OSD)
	if d == nil {
		return nil, fmt.Errorf("fragment %d is on no disk that is there: %w", i, fleet.ErrMissing)
	}
	data := make([]byte, f.Length)
	crcs := make([]uint32, osd.Blocks(len(data)))
	if err := d.ReadAside(ctx, r.mf.Key(chunk, i).Append(nil), 0, data, crcs); err != nil {
		return nil, err
	}
	return data, object.VerifyFragment(r.mf, chunk, i, data)
}
