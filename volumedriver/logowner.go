package volumedriver

import (
	"context"

	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/writebuffer"
)

// logOwner is a Volume as its log calls it. The order and the locks of the calls are
// those of writebuffer.Owner: the locks of the vDisk's parts that are held for a moment
// come after the append section, so none of them is held when the vDisk calls its log.
type logOwner struct{ v *Volume }

var _ writebuffer.Owner = logOwner{}

// ApplyWrite implements writebuffer.Owner: the map follows the order of seq.
func (o logOwner) ApplyWrite(seq, addr uint64, run int, loc sco.Location) error {
	return o.v.ApplyWrite(seq, addr, run, loc)
}

// ApplyEntry implements writebuffer.Owner.
func (o logOwner) ApplyEntry(e tlog.Entry) error { return o.v.ApplyEntry(e) }

// ClosedTLog implements writebuffer.Owner.
func (o logOwner) ClosedTLog(id tlog.ID, lastSeq uint64) { o.v.ClosedTLog(id, lastSeq) }

// Reserve implements writebuffer.Owner.
func (o logOwner) Reserve(ctx context.Context, scos sco.Number, tlogs tlog.ID) (sco.Number, tlog.ID, error) {
	return o.v.cat.reserve(ctx, scos, tlogs)
}

// Failed implements writebuffer.Owner: the vDisk halts.
func (o logOwner) Failed(err error) { o.v.halt(err) }

// Changed implements writebuffer.Owner.
func (o logOwner) Changed() { o.v.store.ring() }
