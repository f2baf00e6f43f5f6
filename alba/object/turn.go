package object

import "runtime"

// Packing and unpacking a block is work of the processor alone, and some blocks (runs
// of one byte, say) take ten times as long as usual. A goroutine takes a turn for each
// block, and there are as many turns as CPUs, first come first served. A process that
// has raised GOMAXPROCS above that always has threads left for its sockets, however
// many long reads its clients ask for at once. Nothing else is done in a turn: nobody
// waits for a disk in it, and no turn lasts longer than a block takes.
var turns = make(chan struct{}, runtime.GOMAXPROCS(0)) // as it is when the process starts

func takeTurn() { turns <- struct{}{} }
func endTurn()  { <-turns }
