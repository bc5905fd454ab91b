// A gRPC client in Go, based on the reference's: health, reflection, and Flight by raw messages.
//
//	go-client [-ca cert.pem] [-key KEY] ADDRESS health [SERVICE] | reflect | flight SQL
//
// It is built in GOPATH mode from Debian's package golang-google-grpc-dev.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/golang/protobuf/proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

func main() {
	log.SetFlags(0)
	ca := flag.String("ca", "", "PEM file of the certificate to trust; without it, plain text")
	key := flag.String("key", "", "the API key")
	flag.Parse()
	if flag.NArg() < 2 {
		log.Fatal("usage: go-client [-ca cert.pem] [-key KEY] ADDRESS health [SERVICE] | reflect | flight SQL")
	}
	if err := run(*ca, *key, flag.Arg(0), flag.Arg(1), flag.Arg(2)); err != nil {
		log.Fatal(err)
	}
}

func run(ca, key, address, what, argument string) error {
	secure := grpc.WithInsecure()
	if ca != "" {
		creds, err := credentials.NewClientTLSFromFile(ca, "")
		if err != nil {
			return err
		}
		secure = grpc.WithTransportCredentials(creds)
	}
	conn, err := grpc.Dial(address, secure)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	}
	switch what {
	case "health":
		return health(ctx, conn, argument)
	case "reflect":
		return services(ctx, conn)
	case "flight":
		return query(ctx, conn, argument)
	}
	return fmt.Errorf("unknown word %q", what)
}

func health(ctx context.Context, conn *grpc.ClientConn, service string) error {
	request := &grpc_health_v1.HealthCheckRequest{Service: service}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	if err == nil {
		fmt.Println(answer.Status)
	}
	return err
}

func services(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	list := &reflection.ServerReflectionRequest_ListServices{ListServices: "*"}
	if err := stream.Send(&reflection.ServerReflectionRequest{MessageRequest: list}); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	for _, service := range answer.GetListServicesResponse().GetService() {
		fmt.Println(service.Name)
	}
	return stream.CloseSend()
}

// query calls GetFlightInfo with raw SQL, then DoGet, and writes the answer as an Arrow IPC stream.
func query(ctx context.Context, conn *grpc.ClientConn, sql string) error {
	const service = "/arrow.flight.protocol.FlightService/"
	bytes := grpc.ForceCodec(raw{})
	descriptor := proto.NewBuffer(nil)
	descriptor.EncodeVarint(1<<3 | proto.WireVarint) // FlightDescriptor.type
	descriptor.EncodeVarint(2)                       // CMD
	descriptor.EncodeVarint(2<<3 | proto.WireBytes)  // FlightDescriptor.cmd
	descriptor.EncodeStringBytes(sql)
	request, info := descriptor.Bytes(), []byte{}
	if err := conn.Invoke(ctx, service+"GetFlightInfo", &request, &info, bytes); err != nil {
		return err
	}
	endpoint, err := field(info, 3) // FlightInfo.endpoint
	if err != nil {
		return err
	}
	ticket, err := field(endpoint, 1) // FlightEndpoint.ticket
	if err != nil {
		return err
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, service+"DoGet", bytes,
		grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&ticket); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	for {
		var data []byte
		if err := stream.RecvMsg(&data); errors.Is(err, io.EOF) {
			return out.Flush()
		} else if err != nil {
			return err
		}
		if err := message(out, data); err != nil {
			return err
		}
	}
}

// message writes one FlightData as an encapsulated message of the IPC stream format.
func message(out io.Writer, data []byte) error {
	header, err := field(data, 2) // FlightData.data_header
	if err != nil {
		return err
	}
	body, _ := field(data, 1000) // FlightData.data_body
	padded := (len(header) + 7) &^ 7
	prefix := make([]byte, 8, 8+padded)
	binary.LittleEndian.PutUint32(prefix, 0xffffffff)
	binary.LittleEndian.PutUint32(prefix[4:], uint32(padded))
	head := append(prefix, header...)
	if _, err := out.Write(head[:8+padded]); err != nil {
		return err
	}
	_, err = out.Write(body)
	return err
}

// field finds the first length-delimited field with this number.
func field(message []byte, number uint64) ([]byte, error) {
	buffer := proto.NewBuffer(message)
	for {
		key, err := buffer.DecodeVarint()
		if err != nil {
			return nil, fmt.Errorf("no field %d in the answer", number)
		}
		switch key & 7 {
		case proto.WireVarint:
			_, err = buffer.DecodeVarint()
		case proto.WireBytes:
			var value []byte
			if value, err = buffer.DecodeRawBytes(false); err == nil && key>>3 == number {
				return value, nil
			}
		default:
			err = fmt.Errorf("unexpected wire type %d", key&7)
		}
		if err != nil {
			return nil, err
		}
	}
}

// raw is a codec that passes message bytes through.
type raw struct{}

func (raw) Name() string                          { return "proto" }
func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
