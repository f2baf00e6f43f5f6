package writebuffer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
)

// LogOptions configure a Log.
type LogOptions struct {
	Volume uuid.UUID
	Origin sco.Origin // that of the vDisk itself
	Epoch  uint64
	Owner  Owner

	// NextSeq is the first seq to hand out; NextSCO and NextTLog are numbers
	// that nobody has used (O11).
	NextSeq  uint64
	NextSCO  sco.Number
	NextTLog tlog.ID

	// SCOLimit and TLogLimit are the numbers that Owner.Reserve returned last, 0 if it
	// has not been called.
	SCOLimit  sco.Number
	TLogLimit tlog.ID

	// HoldStored says that SCOs which an earlier process has stored may have objects
	// below full width. They are narrow ones until Widened is called for them.
	HoldStored bool
}

// Log is one vDisk's part of the buffer. Safe for concurrent use.
//
// It ties its parts, each of which owns its state: the append section with what
// waits behind it, the numbers, the SCOs that can be read, the goroutines that
// prepare files and sync sealed ones, the rounds of commits.
type Log struct {
	buf    *Buffer
	opt    LogOptions
	folder folder
	room   int // blocks for data and commits in an SCO

	section  entrance
	present  present
	numbers  numbers
	preparer preparer
	syncer   syncer
	group    rounds
	fate     fate

	written atomic.Uint64 // every seq up to here is written and applied
	durable atomic.Uint64 // every seq up to here survives a power cut

	stop context.CancelFunc
	done sync.WaitGroup
}

// ErrChanged is returned by Append when the batch's Check said no.
var ErrChanged = errors.New("writebuffer: changed meanwhile")

// OpenLog begins a new log for a vDisk after recovery (see Recover).
func (b *Buffer) OpenLog(opt LogOptions) (*Log, error) {
	l := &Log{buf: b, opt: opt, room: sco.Room(int(b.SCOSize() / sco.ClusterSize))}
	l.folder = folder{log: l, buf: b, dir: b.volumeDir(opt.Volume), volume: opt.Volume, epoch: opt.Epoch}
	l.section.begin(l, opt.NextSeq)
	l.present.clear()
	l.written.Store(opt.NextSeq - 1)
	l.durable.Store(opt.NextSeq - 1)
	l.numbers.begin(opt)
	l.fate.owner, l.fate.rounds, l.fate.ended = opt.Owner, &l.group, make(chan struct{})
	l.preparer.log, l.syncer.log = l, l
	if _, err := b.opt.FS.Stat(l.folder.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	} else if err != nil {
		if err := b.Prepare(opt.Volume); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.done.Go(func() { l.preparer.run(ctx) })
	l.done.Go(func() { l.syncer.run(ctx) })
	b.logs.add(l)
	return l, nil
}

// Written is the highest seq that is written: a Commit of it covers every
// write that has returned.
func (l *Log) Written() uint64 { return l.written.Load() }

// Durable is the highest seq that survives a power cut.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Err is why the log can no longer be written, or nil.
func (l *Log) Err() error { return l.fate.err() }

// Fail ends the log: every later append and commit returns err.
func (l *Log) Fail(err error) { l.fate.fail(err) }

// Refuse makes appends that lack room fail with err rather than wait, until it
// is called with nil: the backend is out of space (P6).
func (l *Log) Refuse(err error) {
	l.fate.refuse(err)
	if err == nil {
		return
	}
	a := l.section.enter()
	a.ready.Send()
	a.leave()
}

// BatchMax is the most clusters that one batch may have.
func (l *Log) BatchMax() int { return l.room / 4 }

// TryAppend writes the batch and applies it, all of it or none, without
// waiting for room: it returns disk.ErrWouldBlock instead. On return the data
// and its entries are in the kernel (P1).
//
// It is all or none because the batch goes to one SCO by one write, and to the TLog by
// one write. Of a batch over two SCOs the first part would stay when the second fails.
func (l *Log) TryAppend(b *Batch) error {
	b.sum()
	if b.clusters > l.BatchMax() {
		return disk.ErrWouldBlock
	}
	a := l.section.enter()
	defer a.leave()
	err := a.append(b, true)
	if err != nil && l.lacksRoom(err) {
		return disk.ErrWouldBlock // Append waits
	}
	return err
}

// lacksRoom reports whether err is a want of room, which passes: the file that lacked it
// takes no more, and another one is begun. It tells the buffer, which gives files up.
func (l *Log) lacksRoom(err error) bool {
	if !full(err) || l.fate.err() != nil {
		return false
	}
	l.buf.pool.lacks(err)
	l.preparer.bell.Ring()
	return true
}

// Append is TryAppend that waits for room and may split the batch over two SCOs. So
// after an error a first part of the batch may be written, in order.
func (l *Log) Append(ctx context.Context, b *Batch) error {
	b.sum()
	if b.clusters > l.BatchMax() {
		return fmt.Errorf("writebuffer: batch of %d clusters, at most %d", b.clusters, l.BatchMax())
	}
	return l.whenReady(ctx, func(a *section) error { return a.append(b, false) })
}

// whenReady runs fn in the append section, again and again until it lacks neither a
// prepared file nor room to write (P6). Between two runs it waits, outside the section.
func (l *Log) whenReady(ctx context.Context, fn func(a *section) error) error {
	lacks := false
	defer func() {
		if lacks {
			a := l.section.enter()
			a.lacking--
			a.leave()
		}
	}()
	for try := 0; ; {
		a := l.section.enter()
		err := fn(a)
		var ready <-chan struct{}
		if err != nil {
			ready = a.ready.Next()
		}
		if err == disk.ErrWouldBlock && !lacks {
			lacks = true
			a.lacking++
		}
		a.leave()
		if err != nil && err != disk.ErrWouldBlock && l.lacksRoom(err) {
			try++
			if err := l.fate.waitForRoom(ctx, try, ready, err); err != nil {
				return err
			}
			continue
		}
		if err != disk.ErrWouldBlock {
			return err
		}
		l.preparer.bell.Ring()
		if refused := l.fate.refused(); refused != nil && l.buf.Waiting() {
			return refused
		}
		select {
		case <-ready:
		case <-l.fate.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AppendEntry hands out a seq for an entry without data, writes it to the TLog
// and applies it. It waits for room. It returns the entry's seq.
func (l *Log) AppendEntry(ctx context.Context, e tlog.Entry) (uint64, error) {
	var seq uint64
	err := l.whenReady(ctx, func(a *section) (err error) {
		seq, err = a.appendEntry(e)
		return err
	})
	return seq, err
}

// WaitEntry waits until there is room for an entry without data, with so many bytes
// of payload. An AppendEntry that follows does not wait, unless another append takes
// the room first.
func (l *Log) WaitEntry(ctx context.Context, payload int) error {
	return l.whenReady(ctx, func(a *section) error {
		_, err := a.entryFits(tlog.EntrySize + payload)
		return err
	})
}
