// Package groupkeys reads and swaps keys of an Arakoon group for whoever keeps records there.
// Packages registrykeys and trustkeys give it the errors that the owners of those records know.
package groupkeys
