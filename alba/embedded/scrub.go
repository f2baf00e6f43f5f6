package embedded

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"time"

	"openvstorage/alba/maintenance"
	"openvstorage/internal/disk"
)

// Scrub is how far reading everything back is, of a disk or of all.
type Scrub struct {
	Bytes     uint64     `json:"bytes"` // read back in this round
	Of        uint64     `json:"of"`    // of so many that there are now
	Fragments uint64     `json:"fragments"`
	Bad       uint64     `json:"bad"`               // found in this round
	Began     *time.Time `json:"began,omitempty"`   // this round; of all disks the first
	Ends      *time.Time `json:"ends,omitempty"`    // when it should have ended; of all disks the last
	Ended     *time.Time `json:"ended,omitempty"`   // the last whole round; of all disks the first. None if one has none
	Seconds   float64    `json:"seconds,omitempty"` // that a round takes; 0: nothing is read back
}

// scrubOf is how far the scrub of a disk is that holds so many bytes. A period of zero
// or less says that nothing is read back.
func scrubOf(p maintenance.ScrubProgress, held uint64, period time.Duration) *Scrub {
	s := &Scrub{Bytes: p.Bytes, Of: max(held, p.Bytes), Fragments: p.Fragments, Bad: p.Bad}
	if period > 0 {
		ends := p.Began.Add(period)
		s.Seconds, s.Ends = period.Seconds(), &ends
	}
	if s.Began = &p.Began; !p.Ended.IsZero() {
		s.Ended = &p.Ended
	}
	return s
}

// scrubOfAll adds up the disks that can be read.
func scrubOfAll(disks []OSD, period time.Duration) (all Scrub) {
	all.Seconds = max(period.Seconds(), 0)
	first := true
	for i := range disks {
		s := disks[i].Scrub
		if s == nil {
			continue
		}
		all.Bytes, all.Of, all.Fragments, all.Bad = all.Bytes+s.Bytes, all.Of+s.Of, all.Fragments+s.Fragments, all.Bad+s.Bad
		if all.Began == nil || s.Began.Before(*all.Began) {
			all.Began = s.Began
		}
		if s.Ends != nil && (all.Ends == nil || s.Ends.After(*all.Ends)) {
			all.Ends = s.Ends
		}
		switch {
		case first, s.Ended == nil:
			all.Ended = s.Ended
		case all.Ended != nil && s.Ended.Before(*all.Ended):
			all.Ended = s.Ended
		}
		first = false
	}
	return all
}

// The progress of the scrub lies in a file of the data directory. The file may be
// deleted while nothing runs: the scrub then begins anew.
const (
	scrubName = "scrub"
	scrubNew  = "scrub.new"
	// scrubMax is the longest that such a file may be, in bytes.
	scrubMax = 1 << 20
)

// scrubFile is that file.
type scrubFile struct {
	fs  disk.FS
	dir string // data directory
}

// read returns what write was given last, nil if there is no file.
func (s scrubFile) read() ([]byte, error) {
	f, err := s.fs.OpenFile(path.Join(s.dir, scrubName), 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	p := make([]byte, min(size, scrubMax))
	n, err := f.ReadAt(p, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return p[:n], err
}

// write replaces the file. It is durable when write returns nil.
func (s scrubFile) write(p []byte) error {
	temp := path.Join(s.dir, scrubNew)
	f, err := s.fs.OpenFile(temp, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.fs.Rename(temp, path.Join(s.dir, scrubName))
	}
	if err != nil {
		return errors.Join(err, ignoreAbsent(s.fs.Remove(temp)))
	}
	return s.fs.SyncDir(s.dir)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
