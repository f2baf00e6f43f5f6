package maintenance

import (
	"crypto/sha256"
	"fmt"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/policy"
)

// Bounds of pieces. What waits in the queue is done before what comes to be in greater danger
// meanwhile, so there is little of it.
const (
	pieceObjects = nsm.MaxPage // objects of a piece
	pieceBytes   = 256 << 20   // of objects, unless one is larger
	piecesMax    = 16          // pieces in the queue, about
)

// piece is a part of the repair that one agent does: those objects of a listing behind one name
// and up to another that are as safe as turn, or less.
type piece struct {
	listing
	after, until string // until "": to the end
	turn         policy.Safety
}

// Fields implements record.Record: U64 namespace, U64 disk or 0, U8 k, m, present of the bucket,
// String after, String until, three U8: disks, nodes and zones that may die, plus one.
func (p *piece) Fields(c *record.Codec) {
	c.U64(&p.ns)
	c.U64(&p.disk)
	c.U8(&p.bucket.K)
	c.U8(&p.bucket.M)
	c.U8(&p.bucket.Present)
	c.String(&p.after, nsm.MaxName)
	c.String(&p.until, nsm.MaxName)
	for _, v := range []*int{&p.turn.Disks, &p.turn.Nodes, &p.turn.Zones} {
		n := uint8(*v + 1)
		c.U8(&n)
		*v = int(n) - 1
	}
}

// name tells a piece from all others that are in the queue.
func (p *piece) name() string {
	h := sha256.Sum256([]byte(p.after + "\x00" + p.until))
	return fmt.Sprintf("%d/%d/%d,%d,%d/%d,%d,%d/%x", p.ns, p.disk, p.bucket.K, p.bucket.M, p.bucket.Present,
		p.turn.Disks, p.turn.Nodes, p.turn.Zones, h[:8])
}

// has reports whether an object's name is in the piece. Names come in order.
func (p *piece) has(name string) bool { return name > p.after && (p.until == "" || name <= p.until) }

// cutter cuts a listing into pieces, as its objects come by in order.
type cutter struct {
	piece
	objects int
	bytes   uint64
	put     func(p *piece) error
}

// add takes an object into the piece, and puts the piece if it is full.
func (c *cutter) add(o *nsm.Object) error {
	c.objects++
	c.bytes += o.Stored()
	if c.objects < pieceObjects && c.bytes < pieceBytes {
		return nil
	}
	return c.cut(o.Name)
}

// cut ends the piece behind a name, "" at the end of the listing, and puts it if it has any
// objects.
func (c *cutter) cut(until string) error {
	if c.objects == 0 {
		return nil
	}
	p := c.piece
	p.until = until
	c.after, c.objects, c.bytes = until, 0, 0
	return c.put(&p)
}
