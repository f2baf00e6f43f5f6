// Package volumetest tests a volume driver over any backend. It does random work on
// vDisks and compares them with a model of their bytes, with restarts, kills and power
// cuts in between (rules O1-O11, P1).
package volumetest
