// Package fleet is the OSDs of a backend as one process sees them: how to reach
// each by its number, which are missing and why, and how each has done lately.
// It decides nothing for the backend: the ABM knows which OSDs there are, and what
// becomes of a lost one.
//
// A Disk stands for one OSD for as long as its number is used, whether it can
// be reached or not. It is an osd.OSD itself: it passes calls on and keeps the
// score, which placement (Fleet.Disks) and hedged reads (Disk.Patience) go by.
// It has three parts: attachment (how it is reached), record (how its writes have
// gone, and its room), and health (whether and how fast it answers).
package fleet
