// Package volumetest tests a volume driver over any backend: random work on a
// vDisk against a model of its bytes, with restarts, kills and power cuts in
// between (rules O1-O11, P1).
package volumetest
