package catalog

// Version 1, which is read, but not written any more. It differs from version 2, which is
// described in format.go, in this:
//
// The root:
//
//	offset size field
//	 64      4  length of the whole root, CRC included
//	 68      4  flags: bit 0 Deleting
//	 72      8  Epoch
//	 80      8  Size
//	 88     12  Created
//	100      8  NextSCO
//	108      8  NextTLog
//	116      8  NextObject
//	124      8  StoredSeq
//	132     82  checkpoint: Seq, TLog, NextPage, Generation, Parent, Root, Live
//	214      8  Recount
//	222      2  number of lists: 7
//	224      .  the lists; there are no settings
//
// A list has zero where the bytes of an entry are. The entries of a segment begin at
// 72, behind their number and bytes.
//
// Entries:
//
//	origin      32  Volume (16), Snapshot (16)
//	child       32  Volume (16), Snapshot (16)
//	snapshot     .  ID (16), Parent (16), Seq (8), Created (12), Size (8),
//	                NextSCO (8), flags (1), Root (17), length of the name (2),
//	                the name
const (
	rootFixed1 = 224
	segFixed1  = 72
	snapFixed1 = 88
)

func (c *Catalog) decodeFixed1(r *reader) (lists int) {
	c.decodeFlags(r)
	c.Epoch, c.Size, c.Created = r.u64(), r.u64(), r.time()
	c.decodeNumbers(r)
	return int(r.u16())
}
