package writebuffer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"

	"openvstorage/internal/bell"
	"openvstorage/internal/broadcast"
)

// Applier is the volume above a Log. Its methods are called in the append
// section, in the order of seq, before the append returns (O9); they must not
// call the Log. An error fails the log.
type Applier interface {
	// ApplyWrite: run clusters from addr on are at loc and the following.
	ApplyWrite(seq, addr uint64, run int, loc sco.Location) error
	// ApplyEntry: any other ordered entry.
	ApplyEntry(e tlog.Entry) error
	// ClosedTLog: every entry up to lastSeq is in closed TLogs, none after it,
	// and every SCO opened so far is sealed.
	ClosedTLog(id tlog.ID, lastSeq uint64)
}

// LogOptions configure a Log.
type LogOptions struct {
	Volume  uuid.UUID
	Origin  sco.Origin // that of the vDisk itself
	Epoch   uint64
	Applier Applier

	// NextSeq is the first seq to hand out; NextSCO and NextTLog are numbers
	// that nobody has used (O11).
	NextSeq  uint64
	NextSCO  sco.Number
	NextTLog tlog.ID

	// SCOLimit and TLogLimit are what Reserve returned last, if it was asked.
	SCOLimit  sco.Number
	TLogLimit tlog.ID

	// Reserve returns the numbers below which SCOs and TLogs may be opened,
	// after making durable that they may be in use.
	Reserve func(ctx context.Context, scos sco.Number, tlogs tlog.ID) (sco.Number, tlog.ID, error)

	// HoldStored: of SCOs that an earlier process had stored it is not known
	// whether their objects are at full width; Widened tells.
	HoldStored bool

	// OnFail is called once, when the log can no longer be written.
	OnFail func(error)
	// OnChange is called when there is something to store.
	OnChange func()
}

// Log is one vDisk's part of the buffer. Safe for concurrent use.
type Log struct {
	buf  *Buffer
	opt  LogOptions
	dir  string
	room int // blocks for data and commits in an SCO

	table   atomic.Pointer[table]
	written atomic.Uint64 // every seq up to here is written and applied
	durable atomic.Uint64 // every seq up to here survives a power cut
	flushed atomic.Int64  // when the last commit round began, Unix nanoseconds
	failed  atomic.Pointer[error]
	refuse  atomic.Pointer[error] // what who lacks room gets instead of waiting

	// mu is the append section (O9). Lock order: mu before Buffer.mu.
	mu sync.Mutex
	// All below is guarded by mu.
	nextSeq      uint64
	round        uint64
	open         *SCO
	next         *SCO // prepared, its name durable
	tl           *openTLog
	nextTL       *openTLog
	unbegun      int    // TLogs in a row that could not be begun
	unmarked     bool   // a mark waits for nextTL
	pending      []byte // entries that no commit block covers yet, as in the TLog
	pendingFirst uint64
	unsynced     []*SCO // sealed, in order
	sealed       []*SCO // sealed, of the open TLog, in order
	unstored     []*SCO // sealed, of closed TLogs that are not stored, in order
	wantFast     bool   // the open SCO is flushed and not pre-written
	lacking      int    // how many wait for a prepared file
	scratch      []byte
	mark         []byte
	closed       []*TLog
	resuming     *resuming // nil: what was recovered is in files of this epoch
	numbers      struct {
		sco, scoLimit   sco.Number
		tlog, tlogLimit tlog.ID
	}
	ready  broadcast.Broadcast // next or nextTL has come
	active uint64              // counts appends: who looks twice sees whether it is idle

	group rounds

	ended   chan struct{} // closed when the log has failed
	prepare bell.Bell
	syncer  bell.Bell
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// ErrChanged is returned by Append when the batch's Check said no.
var ErrChanged = errors.New("writebuffer: changed meanwhile")

// OpenLog begins a new log for a vDisk after recovery (see Recover).
func (b *Buffer) OpenLog(opt LogOptions) (*Log, error) {
	l := &Log{buf: b, opt: opt, dir: b.volumeDir(opt.Volume)}
	l.room = sco.Room(int(b.scoSize / sco.ClusterSize))
	l.table.Store(&table{})
	l.nextSeq = opt.NextSeq
	l.written.Store(opt.NextSeq - 1)
	l.durable.Store(opt.NextSeq - 1)
	l.numbers.sco, l.numbers.scoLimit = opt.NextSCO, opt.SCOLimit
	l.numbers.tlog, l.numbers.tlogLimit = opt.NextTLog, opt.TLogLimit
	l.ended = make(chan struct{})
	if _, err := b.opt.FS.Stat(l.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	} else if err != nil {
		if err := b.Prepare(opt.Volume); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.done.Go(func() { l.preparer(ctx) })
	l.done.Go(func() { l.backgroundSync(ctx) })
	b.mu.Lock()
	b.mu.logs[opt.Volume] = l
	b.mu.Unlock()
	return l, nil
}

// Written is the highest seq that is written: a Commit of it covers every
// write that has returned.
func (l *Log) Written() uint64 { return l.written.Load() }

// Durable is the highest seq that survives a power cut.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Err is why the log can no longer be written, or nil.
func (l *Log) Err() error {
	if p := l.failed.Load(); p != nil {
		return *p
	}
	return nil
}

func (l *Log) fail(err error) {
	if l.failed.CompareAndSwap(nil, &err) {
		close(l.ended)
		if l.opt.OnFail != nil {
			l.opt.OnFail(err)
		}
	}
	l.group.Lock()
	l.group.tellLocked()
	l.group.Unlock()
}

// Fail ends the log: every later append and commit returns err.
func (l *Log) Fail(err error) { l.fail(err) }

// Refuse makes appends that lack room fail with err rather than wait, until it
// is called with nil: the backend is out of space (P6).
func (l *Log) Refuse(err error) {
	if err == nil {
		l.refuse.Store(nil)
		return
	}
	l.refuse.Store(&err)
	l.mu.Lock()
	l.ready.Send()
	l.mu.Unlock()
}

// Span is one aligned write of a batch: whole clusters from Addr on.
type Span struct {
	Addr uint64
	Data []byte
}

// Batch is what one append writes. Reuse it: its scratch space stays.
type Batch struct {
	Spans []Span
	// Check, if set, is asked in the append section before anything is
	// written; false makes the append return ErrChanged.
	Check func() bool

	clusters int
	sums     []uint32
	iov      [][]byte
	entries  []byte
	runs     []run
}

type run struct {
	seq, addr uint64
	n         int
	loc       sco.Location
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Spans)
	b.Spans = b.Spans[:0]
	b.Check = nil
}

// BatchMax is the most clusters that one batch may have.
func (l *Log) BatchMax() int { return l.room / 4 }

// sum makes the checksums, outside the append section.
func (b *Batch) sum() {
	b.sums, b.clusters = b.sums[:0], 0
	for _, s := range b.Spans {
		for d := s.Data; len(d) > 0; d = d[sco.ClusterSize:] {
			b.sums = append(b.sums, sco.Sum(d[:sco.ClusterSize]))
		}
		b.clusters += len(s.Data) / sco.ClusterSize
	}
}

// TryAppend writes the batch and applies it, all of it or none, without
// waiting for room: it returns disk.ErrWouldBlock instead. On return the data
// and its entries are in the kernel (P1).
//
// All or none, because it goes to one SCO by one write, and to the TLog by one: of a
// batch over two SCOs the first part would be there when the second fails.
func (l *Log) TryAppend(b *Batch) error {
	b.sum()
	if b.clusters > l.BatchMax() {
		return disk.ErrWouldBlock
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.appendLocked(b, true)
	if err != nil && l.lacksRoom(err) {
		return disk.ErrWouldBlock // who can wait does
	}
	return err
}

// lacksRoom reports whether something was refused for want of room, which passes:
// the file it was for is closed, and another is begun. The buffer is told.
func (l *Log) lacksRoom(err error) bool {
	if !full(err) || l.Err() != nil {
		return false
	}
	l.buf.lacks(err)
	l.prepare.Ring()
	return true
}

// roomWait is how long at most is waited before what lacked room is tried again.
const roomWait = time.Second

// waitForRoom waits before the given try of what lacked room, which cause says. It
// returns an error if that is not to be tried again.
func (l *Log) waitForRoom(ctx context.Context, try int, ready <-chan struct{}, cause error) error {
	if p := l.refuse.Load(); p != nil {
		return *p
	}
	timer := time.NewTimer(min(time.Millisecond<<min(try, 20), roomWait))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ready:
	case <-l.ended:
	case <-ctx.Done():
		return fmt.Errorf("%w, while it waited for room: %v", ctx.Err(), cause)
	}
	return nil
}

// Append is TryAppend that waits for room, and fills each SCO to its end: after an
// error a first part of the batch may be written, in order.
func (l *Log) Append(ctx context.Context, b *Batch) error {
	b.sum()
	if b.clusters > l.BatchMax() {
		return fmt.Errorf("writebuffer: batch of %d clusters, at most %d", b.clusters, l.BatchMax())
	}
	return l.whenReady(ctx, func() error { return l.appendLocked(b, false) })
}

// whenReady runs fn in the append section until it no longer lacks a file, or room
// for what it writes (P6).
func (l *Log) whenReady(ctx context.Context, fn func() error) error {
	lacks := false
	defer func() {
		if lacks {
			l.mu.Lock()
			l.lacking--
			l.mu.Unlock()
		}
	}()
	for try := 0; ; {
		l.mu.Lock()
		err := fn()
		var ready <-chan struct{}
		if err != nil {
			ready = l.ready.Next()
		}
		if err == disk.ErrWouldBlock && !lacks {
			lacks = true
			l.lacking++
		}
		l.mu.Unlock()
		if err != nil && err != disk.ErrWouldBlock && l.lacksRoom(err) {
			try++
			if err := l.waitForRoom(ctx, try, ready, err); err != nil {
				return err
			}
			continue
		}
		if err != disk.ErrWouldBlock {
			return err
		}
		l.prepare.Ring()
		if p := l.refuse.Load(); p != nil && l.buf.Waiting() {
			return *p
		}
		select {
		case <-ready:
		case <-l.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// space returns how many clusters fit s when entries bytes of entries come
// with them: room for the commit block that must cover them is kept back.
func (l *Log) space(s *SCO, entries int) int {
	if s == nil || s.broken {
		return 0
	}
	return l.room - int(s.used.Load()) - sco.CommitBlocks(len(l.pending)+entries)
}

// wasteShare is what of an SCO is left unused at most for a batch that does not fit
// into the rest of it. If more is left the batch is split, by who can wait.
const wasteShare = 32

// appendLocked is the append section for data. whole: all goes to one SCO, or nothing
// is written.
func (l *Log) appendLocked(b *Batch, whole bool) error {
	if err := l.Err(); err != nil {
		return err
	}
	if b.Check != nil && !b.Check() {
		return ErrChanged
	}
	bytes := (tlog.EntrySize+4)*len(b.Spans) + 4*b.clusters + 2*tlog.EntrySize
	if !l.tlogReady() || (l.space(l.open, bytes) < b.clusters && l.next == nil) {
		l.prepare.Ring()
		return disk.ErrWouldBlock
	}
	if whole && l.space(l.open, bytes) < b.clusters {
		if err := l.beginWhole(b.clusters, bytes); err != nil {
			return err
		}
	}
	l.active++
	for at := (position{}); at.span < len(b.Spans); {
		n := l.space(l.open, bytes)
		if n <= 0 {
			if err := l.roll(); err != nil {
				return err
			}
			continue
		}
		if err := l.appendTo(l.open, b, &at, n); err != nil {
			return err
		}
	}
	return nil
}

// beginWhole moves on to an SCO that takes so many clusters, with bytes of entries,
// if little is lost by that.
func (l *Log) beginWhole(clusters, bytes int) error {
	if l.space(l.open, bytes) > l.room/wasteShare {
		return disk.ErrWouldBlock
	}
	if err := l.roll(); err != nil {
		return err
	}
	if l.space(l.open, bytes) < clusters {
		return disk.ErrWouldBlock // what no commit block covers yet takes the room
	}
	return nil
}

// position is how far a batch is written.
type position struct {
	span, cluster int // within the batch
	sum           int
}

// appendTo writes up to room clusters of the batch, from at on, to s, their
// entries to the TLog, and applies them. One write to each file.
func (l *Log) appendTo(s *SCO, b *Batch, at *position, room int) error {
	first := int(s.used.Load()) + 1
	l.gather(s, b, at, room, first)
	off := int64(first) * sco.ClusterSize
	if first == 1 { // the header goes with the first data
		off = 0
	}
	if _, err := s.file.WritevAt(b.iov, off); err != nil {
		s.broken = true
		return fmt.Errorf("append to %s at %d: %w", s.name, off, err)
	}
	if err := l.tl.append(b.entries); err != nil {
		// The blocks are written and nobody refers to them. They may have been
		// synced: they are not written again.
		l.skip(s, b)
		return err
	}
	if len(l.pending) == 0 {
		l.pendingFirst = b.runs[0].seq
	}
	l.pending = append(l.pending, b.entries...)
	return l.apply(s, b, first)
}

// gather fills the batch's vectors, entries and runs with what fits.
func (l *Log) gather(s *SCO, b *Batch, at *position, room, first int) {
	b.iov, b.entries, b.runs = b.iov[:0], b.entries[:0], b.runs[:0]
	if first == 1 {
		s.header.FirstSeq = l.nextSeq
		b.iov = append(b.iov, sco.AppendHeader(nil, s.header))
	}
	index, seq := first, l.nextSeq
	for at.span < len(b.Spans) && room > 0 {
		sp := b.Spans[at.span]
		n := min(len(sp.Data)/sco.ClusterSize-at.cluster, room, tlog.RunMax)
		from := at.cluster * sco.ClusterSize
		b.iov = append(b.iov, sp.Data[from:from+n*sco.ClusterSize])
		addr := sp.Addr + uint64(at.cluster)
		loc := sco.At(l.opt.Origin, s.Number, index)
		sums := b.sums[at.sum : at.sum+n]
		b.entries = tlog.AppendWrite(b.entries, l.tl.seed, seq, addr, loc, sums)
		b.runs = append(b.runs, run{seq, addr, n, loc})
		copy(s.blocks.Sums[index-1:], sums)
		for i := range n {
			s.blocks.Addrs[index-1+i], s.blocks.Seqs[index-1+i] = addr+uint64(i), seq
		}
		index, seq, room = index+n, seq+1, room-n
		at.sum += n
		if at.cluster += n; at.cluster == len(sp.Data)/sco.ClusterSize {
			at.span, at.cluster = at.span+1, 0
		}
	}
}

// apply makes what was written visible, in the order of seq.
func (l *Log) apply(s *SCO, b *Batch, first int) error {
	end := b.runs[len(b.runs)-1]
	s.used.Store(int32(end.loc.Index() + end.n - 1))
	s.last, s.lastSeq = end.loc.Index()+end.n-1, end.seq
	for _, r := range b.runs {
		s.data += r.n
		if err := l.opt.Applier.ApplyWrite(r.seq, r.addr, r.n, r.loc); err != nil {
			err = fmt.Errorf("map of %s at seq %d: %w", l.opt.Volume, r.seq, err)
			l.fail(err)
			return err
		}
	}
	l.nextSeq = end.seq + 1
	l.tl.note(b.runs[0].seq, end.seq)
	l.written.Store(end.seq)
	return nil
}

// skip marks blocks as written and belonging to nobody. Their sums stay true.
func (l *Log) skip(s *SCO, b *Batch) {
	for _, r := range b.runs {
		for i := range r.n {
			at := r.loc.Index() - 1 + i
			s.blocks.Addrs[at], s.blocks.Seqs[at] = sco.NoAddress, 0
		}
	}
	end := b.runs[len(b.runs)-1]
	s.used.Store(int32(end.loc.Index() + end.n - 1))
}

// AppendEntry hands out a seq for an entry without data, writes it to the TLog
// and applies it. It waits for room. It returns the entry's seq.
func (l *Log) AppendEntry(ctx context.Context, e tlog.Entry) (uint64, error) {
	var seq uint64
	err := l.whenReady(ctx, func() (err error) {
		seq, err = l.appendEntryLocked(e)
		return err
	})
	return seq, err
}

// WaitEntry waits until there is room for an entry without data, with so many bytes
// of payload: AppendEntry does not wait then, unless others are faster.
func (l *Log) WaitEntry(ctx context.Context, payload int) error {
	return l.whenReady(ctx, func() error {
		_, err := l.entryFits(tlog.EntrySize + payload)
		return err
	})
}

// entryFits returns nil if n bytes of entry find room, in the open SCO or, if that is
// full, in the next one; ErrWouldBlock if there is none yet. l.mu is held.
func (l *Log) entryFits(n int) (full bool, err error) {
	if err := l.Err(); err != nil {
		return false, err
	}
	full = l.open == nil || l.open.broken || l.space(l.open, n) < 0
	if !l.tlogReady() || (full && l.next == nil) {
		l.prepare.Ring()
		return full, disk.ErrWouldBlock
	}
	return full, nil
}

func (l *Log) appendEntryLocked(e tlog.Entry) (uint64, error) {
	full, err := l.entryFits(tlog.EntrySize + len(e.Payload))
	if err != nil {
		return 0, err
	}
	if full {
		if err := l.roll(); err != nil {
			return 0, err
		}
	}
	l.active++
	e.Seq = l.nextSeq
	if e.Kind == tlog.KindSnapshot {
		e.Addr = uint64(l.numbers.sco) // above every SCO that has been opened
	}
	at := len(l.pending)
	l.pending = tlog.AppendEntry(l.pending, l.tl.seed, e)
	if err := l.tl.append(l.pending[at:]); err != nil {
		l.pending = l.pending[:at]
		return 0, err
	}
	if at == 0 {
		l.pendingFirst = e.Seq
	}
	if err := l.opt.Applier.ApplyEntry(e); err != nil {
		err = fmt.Errorf("map of %s at seq %d: %w", l.opt.Volume, e.Seq, err)
		l.fail(err)
		return 0, err
	}
	l.nextSeq++
	l.tl.note(e.Seq, e.Seq)
	l.written.Store(e.Seq)
	return e.Seq, nil
}
