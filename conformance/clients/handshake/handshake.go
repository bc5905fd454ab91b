// Connects to a server for each line "CASE PORT NAME ROOT" and prints whether Go accepts its certificate.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Split(lines.Text(), " ")
		root, _ := os.ReadFile(words[3])
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(root)
		config := &tls.Config{ServerName: words[2], RootCAs: roots}
		dialer := &net.Dialer{Timeout: 10 * time.Second}
		connection, err := tls.DialWithDialer(dialer, "tcp", "127.0.0.1:"+words[1], config)
		if err != nil {
			fmt.Println(words[0], "refused")
			continue
		}
		connection.Close()
		fmt.Println(words[0], "taken")
	}
}
