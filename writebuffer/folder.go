package writebuffer

import (
	"errors"
	"path"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
)

// folder makes the files of one vDisk: it knows their names and what their headers
// say. Nothing in it changes, so it needs no lock.
type folder struct {
	log    *Log
	buf    *Buffer
	dir    string
	volume uuid.UUID
	epoch  uint64
}

func (d *folder) scoPath(n sco.Number) string { return path.Join(d.dir, n.Name()) }

func (d *folder) tlogPath(id tlog.ID) string { return path.Join(d.dir, id.Name()) }

// newSCO opens a file of SCO size that is already in the vDisk's directory.
func (d *folder) newSCO(n sco.Number, name string, sparse bool) (*SCO, error) {
	f, err := d.buf.opt.FS.OpenFile(name, disk.Write, 0)
	if err != nil {
		return nil, err
	}
	if err := pin(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	blocks := int(d.buf.SCOSize() / sco.ClusterSize)
	room := sco.Room(blocks)
	s := &SCO{Number: n, log: d.log, file: f, name: name, sparse: sparse}
	s.refs.Store(1)
	s.header = sco.Header{
		Volume: d.volume, Number: n, Incarnation: d.buf.opt.Random(),
		Capacity: blocks, Epoch: d.epoch,
	}
	s.blocks = sco.Blocks{Sums: make([]uint32, room), Addrs: make([]uint64, room), Seqs: make([]uint64, room)}
	return s, nil
}

// newTLog makes an empty TLog file with a durable name.
func (d *folder) newTLog(id tlog.ID) (*openTLog, error) {
	name := d.tlogPath(id)
	var f disk.File
	err := d.buf.names.add(d.dir, func() (err error) {
		f, err = d.buf.opt.FS.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
		if err == nil {
			err = f.Allocate(0, tlogFirst) // with it, it can be begun
		}
		return err
	})
	if err == nil {
		err = pin(f)
	}
	if err != nil && f != nil {
		return nil, errors.Join(err, f.Close(), d.buf.opt.FS.Remove(name))
	}
	return &openTLog{TLog: TLog{ID: id, file: f, name: name}}, err
}

// header is that of a TLog whose first entry has the seq first, with an incarnation
// of its own.
func (d *folder) header(id tlog.ID, first uint64) tlog.Header {
	return tlog.Header{Volume: d.volume, ID: id, Incarnation: d.buf.opt.Random(), Epoch: d.epoch, FirstSeq: first}
}

// removeTLog closes a TLog file that holds nothing that is needed, and removes it.
func (d *folder) removeTLog(t *openTLog) error {
	return errors.Join(t.file.Close(), d.buf.opt.FS.Remove(t.name))
}
