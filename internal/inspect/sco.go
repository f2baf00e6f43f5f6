package inspect

import (
	"errors"
	"fmt"
	"io"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// SCOReport is what inspection finds in an SCO.
type SCOReport struct {
	Name     string      `json:"name"`
	Header   sco.Header  `json:"header"`
	Sealed   bool        `json:"sealed"`
	LowSeq   uint64      `json:"lowSeq"`
	HighSeq  uint64      `json:"highSeq"`
	Clusters int         `json:"clusters"` // verified
	Commits  []SCOCommit `json:"commits"`
	Blocks   []SCOBlock  `json:"blocks,omitempty"`
	Damage   Damage      `json:"damage"`
}

// SCOCommit is a commit block.
type SCOCommit struct {
	Index    int    `json:"index"`
	Round    uint64 `json:"round"`
	FirstSeq uint64 `json:"firstSeq"`
	Seq      uint64 `json:"seq"`
	Durable  uint64 `json:"durable"`
	Entries  int    `json:"entries"`
}

// SCOBlock is a cluster that verifies.
type SCOBlock struct {
	Index int    `json:"index"`
	Addr  uint64 `json:"addr"` // cluster of the vDisk
	Seq   uint64 `json:"seq"`
	CRC   uint32 `json:"crc"`
}

// SCO verifies an SCO: header, every commit block, every cluster, footer. An error says
// that the file is no SCO. Damage in an SCO is in the report.
func SCO(file string) (*SCOReport, error) {
	b, stored, err := readObject(file, sco.SizeMax)
	if err != nil {
		return nil, err
	}
	r, err := checkSCO(b, stored)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// checkSCO verifies all that an SCO's bytes can tell. A sealed SCO is checked against
// its footer. In an open one, what its commits cover is checked; what lies behind the
// last commit means nothing yet. An object of the backend must be sealed.
func checkSCO(b []byte, stored bool) (*SCOReport, error) {
	h, err := sco.DecodeHeader(b)
	if err != nil {
		return nil, err
	}
	r := &SCOReport{Name: h.Number.Name(), Header: h, Commits: []SCOCommit{}}
	var t sco.Trailer
	if len(b) >= sco.HeaderSize+sco.TrailerSize {
		t, err = sco.DecodeTrailer(b[len(b)-sco.TrailerSize:], int64(len(b)))
	}
	if errors.Is(err, sco.ErrNewer) && t.Incarnation == h.Incarnation {
		return nil, err
	}
	// A recycled file may end with the trailer of the SCO that it was.
	r.Sealed = err == nil && t.Incarnation == h.Incarnation && t.Blocks > 0
	if !r.Sealed {
		if stored {
			r.Damage.fault("an object without a trailer (%v)", err)
		}
		r.walk(b, h, len(b)/sco.ClusterSize, r.checkCovered(b))
		return r, nil
	}
	r.LowSeq, r.HighSeq = t.LowSeq, t.HighSeq
	if t.Number != h.Number {
		r.Damage.fault("the trailer is that of %s", t.Number.Name())
	}
	footer, err := t.DecodeFooter(b[t.FooterOffset():])
	if err != nil {
		r.Damage.fault("%v", err)
		return r, nil
	}
	for i, addr := range footer.Addrs {
		if addr != sco.NoAddress {
			r.checkCluster(b, i+1, addr, footer.Seqs[i], footer.Sums[i])
		}
	}
	r.walk(b, h, t.Blocks+1, nil)
	if r.Clusters != t.Data && len(r.Damage) == 0 {
		r.Damage.fault("%d clusters, the trailer says %d", r.Clusters, t.Data)
	}
	return r, nil
}

// walk lists the commits in blocks 1..end-1, and calls covered with each.
func (r *SCOReport) walk(b []byte, h sco.Header, end int, covered func(sco.Commit)) {
	for i := 1; i < end; i++ {
		at := i * sco.ClusterSize
		if at+sco.ClusterSize > len(b) || !sco.IsCommit(b[at:]) {
			continue
		}
		c, err := sco.DecodeCommit(b[at:], h.Incarnation, i)
		if errors.Is(err, sco.ErrNewer) {
			r.Damage.fault("%v", err)
		}
		if err != nil {
			continue // data that looks like one, or a leftover of the file's last use
		}
		line := SCOCommit{Index: i, Round: c.Round, FirstSeq: c.FirstSeq, Seq: c.Seq, Durable: c.Durable}
		if err := tlog.ScanCovered(c.Entries, func(tlog.Entry) error { line.Entries++; return nil }); err != nil {
			r.Damage.fault("commit at block %d: %v", i, err)
		}
		r.Commits = append(r.Commits, line)
		if covered != nil {
			covered(c)
		}
		i += sco.CommitBlocks(len(c.Entries)) - 1
	}
}

// checkCovered verifies the clusters that the entries of a commit place in this SCO.
func (r *SCOReport) checkCovered(b []byte) func(sco.Commit) {
	return func(c sco.Commit) {
		if r.LowSeq == 0 {
			r.LowSeq = c.FirstSeq
		}
		r.HighSeq = c.Seq
		_ = tlog.ScanCovered(c.Entries, func(e tlog.Entry) error { // its errors are told by walk
			if e.Kind == tlog.KindWrite && e.Location.Number() == r.Header.Number {
				for i := range int(e.Run) {
					r.checkCluster(b, e.Location.Index()+i, e.Addr+uint64(i), e.Seq, e.Sum(i))
				}
			}
			return nil
		})
	}
}

func (r *SCOReport) checkCluster(b []byte, index int, addr, seq uint64, sum uint32) {
	at := index * sco.ClusterSize
	if at+sco.ClusterSize > len(b) {
		r.Damage.fault("cluster at block %d lies behind the end", index)
		return
	}
	if got := sco.Sum(b[at : at+sco.ClusterSize]); got != sum {
		r.Damage.fault("cluster at block %d (offset %d): CRC is %08x, not %08x", index, at, got, sum)
		return
	}
	r.Clusters++
	r.Blocks = append(r.Blocks, SCOBlock{Index: index, Addr: addr, Seq: seq, CRC: sum})
}

// Write writes the report for people.
func (r *SCOReport) Write(w io.Writer) {
	state := "open"
	if r.Sealed {
		state = "sealed"
	}
	fmt.Fprintf(w, "%s\t%s\n", r.Name, state)
	fmt.Fprintf(w, "vdisk\t%s\n", r.Header.Volume)
	fmt.Fprintf(w, "incarnation\t%016x\n", r.Header.Incarnation)
	fmt.Fprintf(w, "epoch\t%d\n", r.Header.Epoch)
	fmt.Fprintf(w, "capacity\t%d blocks\n", r.Header.Capacity)
	fmt.Fprintf(w, "seq\t%d to %d\n", r.LowSeq, r.HighSeq)
	fmt.Fprintf(w, "verified\t%d clusters\n", r.Clusters)
	for _, c := range r.Commits {
		fmt.Fprintf(w, "commit\tblock %d, round %d, seq %d to %d, durable %d, %d entries\n", c.Index, c.Round, c.FirstSeq, c.Seq, c.Durable, c.Entries)
	}
	for _, b := range r.Blocks {
		fmt.Fprintf(w, "block\t%d: cluster %d, seq %d, CRC %08x\n", b.Index, b.Addr, b.Seq, b.CRC)
	}
	for _, text := range r.Damage {
		fmt.Fprintf(w, "DAMAGE\t%s\n", text)
	}
}
