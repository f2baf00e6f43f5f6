package writebuffer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
)

// RecoverOptions say what a vDisk's catalog knows.
type RecoverOptions struct {
	Volume uuid.UUID
	// StoredSeq: every entry up to it is in the catalog's TLogs. Only later
	// ones are taken from local files, never a mix for one seq (O10).
	StoredSeq uint64
	// Opened: some owner has had a log before, so its directory must be there.
	Opened bool
	// Bound is the last seq that counts in files of an epoch: a later owner
	// began after it (O11).
	Bound func(epoch uint64) uint64
	// Newest is the epoch of the owner that wrote the catalog. An owner puts the catalog
	// before it makes a file. So a file of a later epoch says that the catalog was put back
	// from a copy, and nobody knows where that epoch began: then only files of the newest
	// epoch count, which has taken over all that was alive. 0: the catalog does not say.
	Newest uint64
	// Keep reports whether a local TLog is in the catalog and not under its
	// checkpoint yet (O4).
	Keep func(id tlog.ID) bool
}

// Recovered is what the local files of a vDisk hold beyond the catalog.
type Recovered struct {
	// Entries follow StoredSeq without a gap, in order of seq. The data of
	// every write among them was read and verified.
	Entries []tlog.Entry
	// Reached is the seq of the last entry, StoredSeq if there is none.
	Reached uint64
	// Durable is the highest seq that the files call durable.
	Durable uint64
	// Cut tells why the log ends at Reached, if more was found behind it.
	Cut string
	// Damage is set if something at or below Durable is missing or bad: the
	// vDisk must not be written, and no file of it may be touched. Entries
	// whose data is bad are among Entries: reading them fails, by file and
	// offset, and everything else reads right.
	Damage error
	// Accepted: an operator has said that the vDisk goes on with what is left, although
	// flushed data is known to be lost (see AcceptLoss).
	Accepted bool
	// Incomplete is set with Damage if an entry at or below Durable is missing. It may
	// have been a write to any cluster, so no cluster can be read.
	Incomplete bool
	// NextSCO and NextTLog are above every number found.
	NextSCO  sco.Number
	NextTLog tlog.ID

	opt   RecoverOptions
	scos  []*foundSCO
	tlogs []foundTLog
}

type foundTLog struct {
	id      tlog.ID
	name    string
	epoch   uint64
	first   uint64
	entries []tlog.Entry
	err     error
}

type foundSCO struct {
	number sco.Number
	name   string
	file   disk.File
	size   int64
	header sco.Header
	err    error // why the header cannot be used
	footer *sco.Blocks
	blocks int
	live   bool // entries beyond StoredSeq have their data here
}

// AcceptLoss is the name of a file that an operator puts into the directory of a vDisk
// to go on with the data that is left, although more is known to have been there. It is
// removed when the vDisk has gone on.
const AcceptLoss = "accept-loss"

// Recover reads a vDisk's local files. It changes nothing on disk; OpenLog
// takes the result, or Release lets it go.
func (b *Buffer) Recover(opt RecoverOptions) (*Recovered, error) {
	r := &Recovered{opt: opt, Reached: opt.StoredSeq, Durable: opt.StoredSeq, NextSCO: 1, NextTLog: 1}
	dir := b.volumeDir(opt.Volume)
	if _, err := b.opt.FS.Stat(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // it may be there
	} else if err != nil && opt.Opened {
		r.Incomplete = true
		r.Damage = fmt.Errorf("%s is missing, and with it what was written after seq %d; put it back, or go on without: make the directory with an empty file %s in it", dir, opt.StoredSeq, AcceptLoss)
		return r, nil
	}
	if err := b.Prepare(opt.Volume); err != nil {
		return nil, err
	}
	names, err := b.opt.FS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m := &merge{r: r, entries: make(map[uint64]tlog.Entry)}
	r.Accepted = slices.Contains(names, AcceptLoss)
	for _, name := range names {
		p := path.Join(dir, name)
		if id, err := tlog.ParseName(name); err == nil {
			r.NextTLog = max(r.NextTLog, id+1)
			if err := m.readTLog(b.opt.FS, id, p); err != nil {
				return nil, errors.Join(err, r.Release())
			}
		} else if n, err := sco.ParseName(name); err == nil {
			r.NextSCO = max(r.NextSCO, n+1)
			if err := m.readSCO(b.opt.FS, n, p); err != nil {
				return nil, errors.Join(err, r.Release())
			}
		}
	}
	m.addTLogs()
	if err := m.walk(); err != nil {
		return nil, errors.Join(err, r.Release())
	}
	return r, nil
}

// Release closes what Recover opened.
func (r *Recovered) Release() error {
	var errs []error
	for _, s := range r.scos {
		if s.file != nil {
			errs = append(errs, s.file.Close())
			s.file = nil
		}
	}
	return errors.Join(errs...)
}

// OldestEpoch is the oldest epoch that left a file: the starts of epochs up to
// it bound nothing that is there.
func (r *Recovered) OldestEpoch() uint64 {
	oldest := uint64(math.MaxUint64)
	for _, t := range r.tlogs {
		if t.err == nil {
			oldest = min(oldest, t.epoch)
		}
	}
	for _, s := range r.scos {
		if s.err == nil {
			oldest = min(oldest, s.header.Epoch)
		}
	}
	return oldest
}

// merge gathers entries from every source, one for each seq.
type merge struct {
	r        *Recovered
	ahead    uint64 // newest epoch found, if the catalog is older than that; else 0
	entries  map[uint64]tlog.Entry
	clash    error // two files disagree about clashSeq
	clashSeq uint64
	ends     string // where the newest TLog ends

	loaded *foundSCO // whose bytes are in data
	data   []byte
}

// begun notes that there is a file of that epoch, before its entries are added. If the
// catalog is older, what was gathered from files of older epochs is dropped: it may have died
// when this epoch began (see RecoverOptions.Newest).
func (m *merge) begun(epoch uint64) {
	if m.r.opt.Newest == 0 || epoch <= max(m.r.opt.Newest, m.ahead) {
		return
	}
	m.ahead = epoch
	clear(m.entries)
	m.clash, m.clashSeq = nil, 0
	m.r.Durable = m.r.opt.StoredSeq
}

// bound is the last seq that counts in files of an epoch.
func (m *merge) bound(epoch uint64) uint64 {
	if epoch < m.ahead {
		return m.r.opt.StoredSeq
	}
	return m.r.opt.Bound(epoch)
}

// add takes an entry from a file of that epoch, unless the catalog has it or
// it died when a later owner began.
func (m *merge) add(file string, epoch uint64, e tlog.Entry) {
	if e.Kind == tlog.KindDurable {
		m.durable(epoch, e.Seq)
	}
	if !e.Kind.Ordered() || e.Seq <= m.r.opt.StoredSeq || e.Seq > m.bound(epoch) {
		return
	}
	old, ok := m.entries[e.Seq]
	if !ok {
		m.entries[e.Seq] = e
		return
	}
	same := old.Kind == e.Kind && old.Addr == e.Addr && old.Location == e.Location && old.Run == e.Run && bytes.Equal(old.Payload, e.Payload)
	if !same && (m.clash == nil || e.Seq < m.clashSeq) {
		m.clashSeq = e.Seq
		m.clash = &CorruptError{file, 0, fmt.Sprintf("seq %d is not what another file says", e.Seq)}
	}
}

func (m *merge) durable(epoch, seq uint64) {
	m.r.Durable = max(m.r.Durable, min(seq, m.bound(epoch)))
}

func (m *merge) readTLog(d disk.FS, id tlog.ID, name string) error {
	f, err := d.OpenFile(name, 0, 0)
	if err != nil {
		return err
	}
	found, err := m.scanTLog(f, id, name)
	_ = f.Close() // it was only read
	if err != nil {
		return err
	}
	m.r.tlogs = append(m.r.tlogs, found)
	return nil
}

// scanTLog reads a TLog up to its last good entry. Bytes that are no entry are noted
// in found; an error of the disk is not damage, and is returned.
func (m *merge) scanTLog(f disk.File, id tlog.ID, name string) (foundTLog, error) {
	found := foundTLog{id: id, name: name}
	size, err := f.Size()
	if err != nil {
		return found, err
	}
	h, end, _, err := tlog.ScanAt(f, size, func(_ int64, e tlog.Entry) error {
		e.Payload = bytes.Clone(e.Payload)
		found.entries = append(found.entries, e)
		return nil
	})
	found.epoch, found.first = h.Epoch, h.FirstSeq
	switch {
	case err != nil && !errors.Is(err, tlog.ErrCorrupt):
		return found, fmt.Errorf("%s at offset %d: %w", name, end, err)
	case err != nil:
		found.err = err // never synced, or damaged: commit blocks say the same
	case h.Volume != m.r.opt.Volume || h.ID != id:
		found.err = fmt.Errorf("%w: it is %s of %s", tlog.ErrCorrupt, h.ID.Name(), h.Volume)
		found.entries = nil
	default:
		m.ends = fmt.Sprintf("%s at offset %d", name, end)
	}
	if h.Volume == m.r.opt.Volume && h.ID == id {
		m.begun(h.Epoch)
	}
	return found, nil
}

// addTLogs takes the entries of the TLogs. In a TLog that ends because a write to it
// failed, whole entries of refused requests may follow the last good one. Their seqs
// were handed out again, in the next TLog of the same owner: so a TLog counts only up
// to the first seq of the next one.
func (m *merge) addTLogs() {
	tlogs := m.r.tlogs
	slices.SortFunc(tlogs, func(a, b foundTLog) int { return cmp.Compare(a.id, b.id) })
	for i, t := range tlogs { // all of them have begun
		bound := uint64(math.MaxUint64)
		for _, later := range tlogs[i+1:] {
			if later.err == nil && later.epoch == t.epoch {
				bound = min(bound, later.first-1)
			}
		}
		for _, e := range t.entries {
			if !e.Kind.Ordered() || e.Seq <= bound {
				m.add(t.name, t.epoch, e)
			}
		}
		tlogs[i].entries = nil
	}
}

func (m *merge) readSCO(d disk.FS, n sco.Number, name string) error {
	f, err := d.OpenFile(name, disk.Write, 0)
	if err != nil {
		return err
	}
	s := &foundSCO{number: n, name: name, file: f}
	m.r.scos = append(m.r.scos, s)
	if s.size, err = f.Size(); err != nil {
		return err
	}
	head := make([]byte, sco.HeaderSize)
	if s.size >= sco.HeaderSize {
		if _, err := f.ReadAt(head, 0); err != nil {
			return err
		}
	}
	s.header, s.err = sco.DecodeHeader(head)
	if errors.Is(s.err, sco.ErrNewer) {
		return fmt.Errorf("%s: %w", name, s.err)
	}
	if h := s.header; s.err == nil {
		switch {
		case h.Volume != m.r.opt.Volume || h.Number != n:
			s.err = fmt.Errorf("%w: it is %s of %s", sco.ErrCorrupt, h.Number.Name(), h.Volume)
		case int64(h.Capacity)*sco.ClusterSize != s.size:
			s.err = fmt.Errorf("%w: it has %d bytes, its header says %d", sco.ErrCorrupt, s.size, int64(h.Capacity)*sco.ClusterSize)
		}
	}
	if s.err != nil {
		return nil // prepared and never begun, or damaged: walk tells
	}
	m.begun(s.header.Epoch)
	if err := s.readFooter(); err != nil {
		return err
	}
	return m.readCommits(s)
}

// readFooter takes the footer of a sealed SCO, if it is whole. The header has said
// how large the file is: no more than sco.SizeMax.
func (s *foundSCO) readFooter() error {
	tail := make([]byte, sco.TrailerSize)
	if _, err := s.file.ReadAt(tail, s.size-sco.TrailerSize); err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	t, err := sco.DecodeTrailer(tail, s.size)
	if errors.Is(err, sco.ErrNewer) && t.Number == s.number && t.Incarnation == s.header.Incarnation {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err != nil || t.Number != s.number || t.Incarnation != s.header.Incarnation {
		return nil
	}
	columns := make([]byte, s.size-t.FooterOffset())
	if _, err := s.file.ReadAt(columns, t.FooterOffset()); err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	if f, err := t.DecodeFooter(columns); err == nil {
		s.footer, s.blocks = &f, t.Blocks
	}
	return nil
}

// readCommits takes the entries of every commit block. With a footer their
// places are known; without, the whole file is searched.
func (m *merge) readCommits(s *foundSCO) error {
	if s.footer != nil && s.blocks > 0 && m.covered(s) {
		return nil
	}
	if err := m.load(s); err != nil {
		return err
	}
	room := sco.Room(s.header.Capacity)
	for i := 1; i <= room; {
		b := m.data[i*sco.ClusterSize : (room+1)*sco.ClusterSize]
		c, err := sco.DecodeCommit(b, s.header.Incarnation, i)
		if errors.Is(err, sco.ErrNewer) { // its CRC is right: no guest writes one
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err != nil {
			i++
			continue
		}
		m.durable(s.header.Epoch, c.Durable)
		err = tlog.ScanCovered(c.Entries, func(e tlog.Entry) error {
			e.Payload = bytes.Clone(e.Payload)
			m.add(s.name, s.header.Epoch, e)
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s at offset %d: %w", s.name, i*sco.ClusterSize, err)
		}
		i += sco.CommitBlocks(len(c.Entries))
	}
	return nil
}

// covered reports whether the catalog has all that a sealed SCO can tell.
func (m *merge) covered(s *foundSCO) bool {
	for i, a := range s.footer.Addrs {
		if a != sco.NoAddress && s.footer.Seqs[i] > m.r.opt.StoredSeq {
			return false
		}
	}
	return slices.ContainsFunc(s.footer.Addrs, func(a uint64) bool { return a != sco.NoAddress })
}

// load reads an SCO whole: verification is sequential, not cluster by cluster.
func (m *merge) load(s *foundSCO) error {
	if m.loaded == s {
		return nil
	}
	m.loaded = nil
	m.data = slices.Grow(m.data[:0], int(s.size))[:s.size]
	if _, err := s.file.ReadAt(m.data, 0); err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	m.loaded = s
	return nil
}
