package object

import "runtime"

// Packing and unpacking a block is work of the processor alone, and some of it
// (runs of one byte, say) goes at a tenth of the usual speed. No more of it runs at
// a time than there are CPUs, first come first served, block by block: a process
// that lets more goroutines run than that then has somebody left who listens to
// its sockets, however many long reads its clients ask for at once. Nothing else
// is done in a turn, so nobody waits for a disk, or for longer than blocks take.
var turns = make(chan struct{}, runtime.GOMAXPROCS(0)) // as it is when the process starts

func takeTurn() { turns <- struct{}{} }
func endTurn()  { <-turns }
