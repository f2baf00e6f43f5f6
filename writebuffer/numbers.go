package writebuffer

import (
	"sync"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// numbers hands out the numbers of a log's SCOs and TLogs, each once (O11). Its lock
// is the innermost: nothing is called under it.
type numbers struct {
	mu              sync.Mutex
	sco, scoLimit   sco.Number // the next one, and the first that is not reserved
	tlog, tlogLimit tlog.ID
}

// begin takes the first numbers, and those that are reserved, from a log's options.
func (n *numbers) begin(opt LogOptions) {
	n.sco, n.scoLimit = opt.NextSCO, opt.SCOLimit
	n.tlog, n.tlogLimit = opt.NextTLog, opt.TLogLimit
}

// next returns the next numbers to be used.
func (n *numbers) next() (sco.Number, tlog.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sco, n.tlog
}

// raise makes the numbers below the given ones usable. It takes none back.
func (n *numbers) raise(scos sco.Number, tlogs tlog.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.scoLimit, n.tlogLimit = max(n.scoLimit, scos), max(n.tlogLimit, tlogs)
}

// spent reports whether more numbers must be reserved before the next SCO and TLog.
func (n *numbers) spent() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sco >= n.scoLimit || n.tlog >= n.tlogLimit
}

// takeSCO takes the next number of an SCO, if it is reserved.
func (n *numbers) takeSCO() (sco.Number, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sco >= n.scoLimit {
		return 0, false
	}
	n.sco++
	return n.sco - 1, true
}

// takeTLog takes the next number of a TLog, if it is reserved.
func (n *numbers) takeTLog() (tlog.ID, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tlog >= n.tlogLimit {
		return 0, false
	}
	n.tlog++
	return n.tlog - 1, true
}

// freeTLog returns the next number of a TLog and leaves it to be used, until
// usedTLog says that it was. reserved is false if it must be reserved first.
func (n *numbers) freeTLog() (id tlog.ID, reserved bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tlog, n.tlog < n.tlogLimit
}

// usedTLog takes the number out of use.
func (n *numbers) usedTLog(id tlog.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tlog = max(n.tlog, id+1)
}
