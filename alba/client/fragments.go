package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/records"
	"openvstorage/backend"
	"openvstorage/internal/broadcast"
	"openvstorage/internal/chance"
)

// chunkWrite is the fragments of one chunk on their way to disks.
type chunkWrite struct {
	by     *writer
	m      *manifest.Manifest // only what does not change: key, policy, checksums
	chunk  int
	from   *coded
	values []osd.Value
	spare  *spares
	began  time.Time
	record []byte // beside each of its fragments

	mu      sync.Mutex
	osds    []uint64   // of the fragments that are durable; policy.None: not yet, or never
	current []*attempt // by which they are being written; nil: by none any more
	running []*attempt // those, and others that have not ended
	errs    []error
	left    int                 // fragments that are being written
	stored  int                 // fragments that are durable
	kth     time.Duration       // until k were; 0: they are not yet
	overdue bool                // nobody waits for those that are being written any more
	over    bool                // what they write will not be used either
	changed broadcast.Broadcast // with each result
}

// writeChunk starts to write the fragments of a chunk, each to a disk of its own.
func (wr *writer) writeChunk(m *manifest.Manifest, chunk int, from *coded, disks []policy.Disk, record []byte) *chunkWrite {
	places := policy.Place(m.Policy, disks, nil, chance.Chance{})
	w := &chunkWrite{
		by: wr, m: m, chunk: chunk, record: record, from: from, values: make([]osd.Value, len(places)), began: time.Now(),
		osds: make([]uint64, len(places)), current: make([]*attempt, len(places)), spare: newSpares(m.Policy, disks, places),
	}
	// A late fragment is written to its end: only then may its memory be used again.
	// A fragment that its disk has not begun to write is given up if the disk is
	// known to be late, the put has failed, or the client is closed.
	var begun []*attempt
	w.mu.Lock()
	for i, number := range places {
		w.osds[i] = policy.None
		w.values[i] = fragmentValue(m, chunk, i, from)
		if number != policy.None {
			w.left++ // before the first of them can end
			begun = append(begun, w.beginLocked(i, number))
		}
	}
	w.mu.Unlock()
	wr.chunks.use(from, w)
	wr.late.Add(len(begun))
	wr.moves.asked(len(begun))
	for _, a := range begun {
		go w.run(a)
	}
	return w
}

// unchanged refuses a fragment whose checksums in memory are not those of the manifest.
// The disk has checked the fragment against the checksums in memory, and readers will
// check it against those of the manifest (P2).
func (w *chunkWrite) unchanged(i int, value osd.Value) error {
	f := &w.m.Chunks[w.chunk].Fragments[i] // its disk is being entered, maybe
	if len(value.Data) == int(f.Length) && osd.TableCRC(value.CRCs) == f.CRC {
		return nil
	}
	return fmt.Errorf("%w: fragment %v: what was written is not what its manifest says", backend.ErrCorrupt, w.m.Key(w.chunk, i))
}

// leave ends the wait for what is still being written. A fragment that a late disk has not
// begun to write is taken from it: a spare disk gets the fragment, or a repair makes it
// again. If over, the whole chunk is given up: no disk begins to write any more of it.
func (w *chunkWrite) leave(over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = w.over || over
	w.overdue = true
	for _, a := range w.current {
		if a == nil {
			continue
		}
		w.overdueLocked(a)
		d := w.by.fleet.Disk(a.disk)
		if !over && d != nil && w.lateLocked(a) {
			d.WriteLate()
		}
		if over || d == nil || d.Late() {
			a.cancel()
		}
	}
}

// stuck reports whether all that is still being written is on disks that do not
// answer.
func (w *chunkWrite) stuck() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.running {
		if d := w.by.fleet.Disk(a.disk); d != nil && d.Silent() == nil {
			return false
		}
	}
	return true
}

// writeTo writes a fragment and its record together: a disk has both, or neither.
func (w *chunkWrite) writeTo(ctx context.Context, number uint64, key manifest.Key, value osd.Value) error {
	d := w.by.fleet.Disk(number)
	if d == nil {
		return fmt.Errorf("disk %d: %w", number, errLeft)
	}
	return d.Apply(ctx, nil, []osd.Update{
		{Key: key.Append(nil), Value: value},
		{Key: key.AppendRecovery(nil), Value: records.Value(key, w.record, value.Epoch)},
	})
}

// errLeft: the ABM has given the disk up since it was chosen.
var errLeft = errors.New("it left")

// lookEvery is how often a put looks at the disks that it waits for.
const lookEvery = 100 * time.Millisecond

// wait returns when all fragments are written. It also returns when as many as the
// policy's c are, and the others are late (see lateAfter) or on disks that are known to be. As
// long as there are fewer than c, spare disks take what is late. It fails when the disks that
// answer cannot bring the fragments to c.
func (w *chunkWrite) wait(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		p := w.progress()
		switch c := int(w.m.Policy.C); {
		case p.done >= c && (p.left == 0 || p.overdue):
			return nil
		case p.done >= c && p.prompt == 0:
			w.leave(false)
			return nil
		case p.done+p.left < c:
			return w.short(p.done, p.err)
		case p.done+p.inTime < c && w.moveLate() > 0:
			continue
		case p.done+p.left-p.silent < c:
			return w.short(p.done, p.err)
		}
		select {
		case <-p.changed:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// progress is how far the fragments of a chunk are.
type progress struct {
	done, left int
	inTime     int // of left, those that are not late, on disks that answer
	// Of inTime, those on disks that nothing is known to hold up. A disk that still has an
	// overdue fragment of another put is not such a disk, nor is one that was late with it.
	prompt  int
	silent  int // of left, those on disks that do not answer
	overdue bool
	err     error
	changed <-chan struct{}
}

func (w *chunkWrite) progress() progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := progress{done: w.stored, left: w.left, overdue: w.overdue, changed: w.changed.Next()}
	errs := w.errs
	for _, a := range w.current {
		if a == nil {
			continue
		}
		d := w.by.fleet.Disk(a.disk)
		switch {
		case d == nil:
		case d.Silent() != nil:
			p.silent++
			errs = append(errs[:len(errs):len(errs)], d.Silent())
		case w.lateLocked(a):
		default:
			p.inTime++
			if !d.Late() && !d.WritesLate() && !w.by.overdue.has(a.disk) {
				p.prompt++
			}
		}
	}
	p.err = errors.Join(errs...)
	return p
}

// errFewDisks: nothing has failed, and there was no disk for more.
var errFewDisks = errors.New("the disks that take writes are too few")

// short says that too few fragments could be written.
func (w *chunkWrite) short(done int, err error) error {
	if err == nil {
		err = errFewDisks
	}
	err = fmt.Errorf("object %s of namespace %d: chunk %d has %d of the %d fragments that it is accepted with: %w",
		w.m.Name, w.m.Namespace, w.chunk, done, w.m.Policy.C, err)
	if errors.Is(err, osd.ErrFull) {
		return fmt.Errorf("%w: %w", backend.ErrNoSpace, err)
	}
	return err
}

// settle enters in the manifest where the fragments are that are durable now.
func (w *chunkWrite) settle(c *manifest.Chunk) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range w.osds {
		c.Fragments[i].OSD = n
	}
}

// spares finds other disks for fragments whose own disk has failed.
type spares struct {
	policy policy.Policy

	mu     sync.Mutex
	disks  []policy.Disk // those that have failed are Failing
	places []uint64      // of the fragments; policy.None: on none any more
}

// newSpares is for a chunk whose fragments are on their way to places.
func newSpares(p policy.Policy, disks []policy.Disk, places []uint64) *spares {
	return &spares{policy: p, disks: disks, places: slices.Clone(places)}
}

// take returns another disk for fragment i, whose disk has failed, or policy.None if no disk
// keeps the policy. The failed disk gets nothing more of the chunk, and makes room on its own
// node and in its zone.
func (s *spares) take(i int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disks = s.without(s.places[i])
	s.places[i] = policy.PlaceOne(s.policy, s.disks, s.places, i, chance.Chance{})
	return s.places[i]
}

// move is take for a fragment whose disk is only late: if there is no other, it stays where it
// is.
func (s *spares) move(i int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	disks := s.without(s.places[i])
	number := policy.PlaceOne(s.policy, disks, s.places, i, chance.Chance{})
	if number != policy.None {
		s.disks, s.places[i] = disks, number
	}
	return number
}

// back gives fragment i to a disk that it was taken from, and reports whether the policy allows
// that: others of the chunk may have taken its place on the node meanwhile.
func (s *spares) back(i int, number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	disks := slices.Clone(s.disks)
	for j := range disks {
		disks[j].Failing = disks[j].OSD != number
	}
	if policy.PlaceOne(s.policy, disks, s.places, i, chance.Chance{}) != number {
		return false
	}
	s.places[i] = number
	return true
}

// without returns the disks, one of them failing.
func (s *spares) without(number uint64) []policy.Disk {
	if number == policy.None {
		return s.disks
	}
	disks := slices.Clone(s.disks) // other chunks have them too
	for j := range disks {
		if disks[j].OSD == number {
			disks[j].Failing = true
		}
	}
	return disks
}

// enterLate waits in the background for fragments that were not durable at the commit,
// and enters them in the manifest. If that fails, they are garbage, which maintenance
// collects.
func (wr *writer) enterLate(s *space, m *manifest.Manifest, version uint64, chunks []*chunkWrite) {
	waiting := false
	for i, w := range chunks {
		w.mu.Lock()
		for j, n := range w.osds {
			waiting = waiting || w.left > 0 || n != m.Chunks[i].Fragments[j].OSD
		}
		w.mu.Unlock()
	}
	if !waiting {
		return
	}
	wr.late.Add(1)
	go func() {
		defer wr.late.Done()
		for _, w := range chunks {
			w.drain()
		}
		if wr.life.Err() != nil {
			return
		}
		if err := wr.addLate(context.Background(), s, m, chunks); err != nil {
			wr.log.Warn("late fragments were not entered in their manifest; maintenance will delete them and make others",
				"namespace", s.name, "object", m.Name, "version", version, "err", err)
		}
	}()
}

// drain waits until no fragment is under way.
func (w *chunkWrite) drain() {
	for {
		w.mu.Lock()
		left, changed := w.left, w.changed.Next()
		w.mu.Unlock()
		if left == 0 {
			return
		}
		<-changed
	}
}

// addLate enters what came in since the commit of m.
func (wr *writer) addLate(ctx context.Context, s *space, m *manifest.Manifest, chunks []*chunkWrite) error {
	next := *m
	next.Revision++
	next.Chunks = make([]manifest.Chunk, len(m.Chunks))
	var changes []nsm.Change
	for i := range m.Chunks {
		next.Chunks[i] = m.Chunks[i]
		next.Chunks[i].Fragments = append([]manifest.Fragment(nil), m.Chunks[i].Fragments...)
		for j, n := range chunks[i].osds {
			if f := &next.Chunks[i].Fragments[j]; f.OSD == policy.None && n != policy.None {
				f.OSD = n
				changes = append(changes, nsm.Change{Chunk: uint32(i), Fragment: uint16(j), To: nsm.Fragment{OSD: n}})
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	encoded, err := next.Append(nil)
	if err != nil {
		return err
	}
	_, err = s.nsm.Update(ctx, s.number, nsm.Update{
		Name: m.Name, ID: m.Object, Revision: m.Revision, Epoch: m.Epoch, Changes: changes, Manifest: encoded,
	})
	switch {
	case errors.Is(err, nsm.ErrNotFound): // replaced or deleted meanwhile
		return nil
	case err != nil:
		return err
	}
	wr.counts.late.Add(uint64(len(changes)))
	wr.manifests.forget(s.number, m.Name)
	return nil
}
